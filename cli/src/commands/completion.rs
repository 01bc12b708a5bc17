//! `kubectl aq completion`

use clap::Args;
use clap_complete::Shell;

use crate::output;

/// Prints the script that completes `kubectl-aq` in a shell
///
/// It is for the program's own name. `kubectl aq` is completed by kubectl's own script, if
/// `kubectl_complete-aq` is in the `PATH`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        source <(kubectl aq completion bash)\n  \
        kubectl aq completion zsh > \"${fpath[1]}/_kubectl-aq\"\n  \
        kubectl aq completion fish > ~/.config/fish/completions/kubectl-aq.fish")]
pub(crate) struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(arguments: &CompletionArgs, mut command: clap::Command) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "kubectl-aq", &mut script);
    Ok(output::print_bytes(&script)?)
}
