//! What the benchmarks print, as one report: their tables, the goals of the project next to what
//! was measured, and plots.

pub mod goals;
pub mod plot;
pub mod table;

use std::fmt::Write;

use goals::GOALS;
use plot::PLOTS;

/// A benchmark, and what it printed.
#[derive(Clone, Debug)]
pub struct Part {
    /// As `make bench-NAME` calls it.
    pub name: &'static str,
    /// What it printed; `None` if it did not run to its end.
    pub printed: Option<String>,
}

/// What the report says of each benchmark: its name, a heading, and what stands before the tables.
pub const PARTS: [(&str, &str, &str); 6] = [
    (
        "gateway",
        "Submit: the gateway",
        "A call is stored when the queue's stream has acknowledged it. One limit is hyper's\n\
         server with a bare publish of the body, the other the same with a message id and as\n\
         many bytes of headers as a call has; each is a process of its own, in the same run.\n\
         nats-server, the load and what is measured share the processors.",
    ),
    (
        "worker",
        "Dispatch: the worker",
        "The limit takes messages in batches, posts them over pooled connections and\n\
         acknowledges without waiting: no lease, no retry, no callback, no log.",
    ),
    (
        "operator",
        "Scale: the operator",
        "On a real API server, with a nats-server and the operator on the same processors.\n\
         Ready means that each queue has its streams, consumers, Deployment and status; no pod\n\
         is started. The limit is a client that knows beforehand what there is to write: it\n\
         writes all that the operator wrote once more, under other names, 16 queues at once,\n\
         and neither watches nor asks nor decides. The steady state is counted after that.\n\
         With 10,000 queues it is an hour in all:\n\
         `bench_queues=100,1000,10000 bench_steady=600 bench/run operator`.\n\
         Of so many, the limit is not measured: NATS takes most of the time, and more for each\n\
         stream that it has.",
    ),
    (
        "lanes",
        "Lanes of functions",
        "What a lane costs nats-server: the consumer of one function of a queue with fairness\n\
         between functions. Each acknowledgement takes time for each consumer of the stream, and\n\
         in a stream with three copies each lane is a Raft group. Compare with the row of one\n\
         lane. Calls without a lane are those of programs that know no lanes: the sweep finds\n\
         them.",
    ),
    (
        "results",
        "Results and waiting",
        "A client that waits with `Prefer: wait` gets the response of the function from the\n\
         result that the worker stores. The synchronous route is the least that a call through\n\
         the gateway takes. The function itself is in both. Dispatch is compared in one queue:\n\
         calls whose results are kept, and calls without, with and without `spec.results`.",
    ),
    (
        "peers",
        "Next to other queues",
        "The same of AsyncQueue and of three others, from end to end: 64 clients store jobs, a\n\
         worker with 64 jobs at once posts each to an HTTP function, from a backlog, and then\n\
         as they come. AsyncQueue's clients speak HTTP to its gateway, which stores calls on\n\
         NATS. [Faktory](https://github.com/contribsys/faktory) is a server with a Redis of\n\
         its own. The clients of [Asynq](https://github.com/hibiken/asynq), the Go job queue\n\
         on Redis that is used most, and [River](https://riverqueue.com), on PostgreSQL, store\n\
         jobs themselves, with no server before the store. All three have their own Go\n\
         libraries for clients and worker. All else is alike: the machine, the job, the\n\
         function.\n\
         \n\
         They run with the settings they come with; Asynq and River once more *eager*: their\n\
         workers look for jobs every 2 ms (Asynq, when it found none; as it comes, every\n\
         second) or fetch again after 2 ms (River; as it comes, after 100 ms), which costs\n\
         their store more. A worker of Faktory waits for jobs at the server. Compare rows\n\
         whose jobs are equally safe: only what is synced before it is acknowledged survives a\n\
         power cut; what is written to a file survives a kill of the server; what Redis or\n\
         PostgreSQL does not write at once is lost with a kill of it.",
    ),
];

/// What stands at the top: a name and a value each, such as the machine and versions.
pub type Facts = Vec<(&'static str, String)>;

/// The report, with its plots in `folder` next to it.
#[must_use]
pub fn markdown(facts: &Facts, parts: &[Part], folder: &str) -> String {
    let mut text = "# Benchmarks\n\n\
                    For those who compare queues, or change the programs: what `make bench` \
                    measured and wrote. Each figure stands next to\nits limit, measured in the \
                    same run, or next to other queues.\n\n\
                    | | |\n|---|---|\n"
        .to_owned();
    for (name, value) in facts {
        let _ = writeln!(text, "| {name} | {value} |");
    }
    text += "\n## Goals\n\n| | goal | measured | |\n|---|---|---|---|\n";
    for goal in GOALS {
        text += &goal.row(parts);
    }
    for (name, heading, about) in PARTS {
        let _ = write!(text, "\n## {heading}\n\n{about}\n\n");
        let printed = printed(parts, name);
        let Some(printed) = printed else {
            let _ = writeln!(text, "**Not measured in this run**: `make bench-{name}`.");
            continue;
        };
        for plot in PLOTS.iter().filter(|plot| plot.part == name && plot.svg(printed).is_some()) {
            let _ = writeln!(text, "![{}]({folder}/{}.svg)\n", plot.title, plot.name);
        }
        text += printed.trim();
        text += "\n";
    }
    text
}

/// The plots of what was measured: a name and an SVG each.
#[must_use]
pub fn plots(parts: &[Part]) -> Vec<(&'static str, String)> {
    PLOTS
        .iter()
        .filter_map(|plot| Some((plot.name, plot.svg(printed(parts, plot.part)?)?)))
        .collect()
}

fn printed<'a>(parts: &'a [Part], name: &str) -> Option<&'a str> {
    parts.iter().find(|part| part.name == name)?.printed.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKER: &str = "2 runs of each\n\n\
        | run | worker, calls/s | limit, calls/s | ratio |\n|---|---|---|---|\n\
        | 1 | 15900 | 20100 | 0.79 |\n| median | 16000 | 20000 | 0.80 |\n\n\
        | | worker |\n|---|---|\n\
        | p50 from submit to arrival at the function, ms, 1000 calls/s | 0.25 |\n\
        | p99 from submit to arrival at the function, ms, 1000 calls/s | 3.00 |\n\
        | resident MB, idle | 7.5 |\n";

    fn measured() -> Vec<Part> {
        let part = |name, printed: Option<&str>| Part { name, printed: printed.map(str::to_owned) };
        vec![part("worker", Some(WORKER)), part("operator", None)]
    }

    #[test]
    fn a_table_comes_out_as_a_report_with_its_goals_and_plots() {
        let report = markdown(&vec![("date", "2026-01-02".to_owned())], &measured(), "bench");
        assert!(report.contains("| date | 2026-01-02 |"), "{report}");
        assert!(report.contains("| median | 16000 | 20000 | 0.80 |"), "{report}");
        assert!(report.contains("| worker: calls/s | more than 15000 | 16000 | met |"), "{report}");
        assert!(report.contains("| at most 2 | 3 | missed: 1.5 times the goal |"), "{report}");
        assert!(report.contains("![Calls a second, worker](bench/worker.svg)"), "{report}");
    }

    #[test]
    fn benchmark_that_did_not_run_is_reported_missing() {
        let report = markdown(&Vec::new(), &measured(), "bench");
        assert!(
            report.contains("**Not measured in this run**: `make bench-operator`."),
            "{report}"
        );
        assert!(
            report.contains("| operator: 1,000 queues ready, s | at most 15 | not measured | |"),
            "{report}"
        );
        assert!(!report.contains("operator.svg"), "{report}");
    }

    #[test]
    fn only_what_was_measured_has_a_plot() {
        let plots = plots(&measured());
        assert_eq!(plots.len(), 1, "{plots:?}");
        let (name, svg) = &plots[0];
        assert_eq!(*name, "worker");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
        assert!(svg.contains(">20,000<") && svg.contains(">16,000<"), "{svg}");
    }
}
