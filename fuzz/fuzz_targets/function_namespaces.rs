//! A setting with namespaces, and a function as a client names it: no function of the platform is
//! called, however either is written, nor one that is not listed.
#![no_main]

use asyncqueue::{
    FunctionName,
    function_namespaces::{FunctionNamespaces, NamespaceList},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (setting, function) = input;
    let Ok(listed) = setting.parse::<NamespaceList>() else { return };
    assert_eq!(listed.to_string().parse::<NamespaceList>().as_ref(), Ok(&listed));
    let platform = Some("openfaas".to_owned());
    let Ok(namespaces) = FunctionNamespaces::new("openfaas-fn".to_owned(), listed, platform) else {
        return;
    };
    let Ok(function) = FunctionName::parse(function, namespaces.default_namespace()) else {
        return;
    };
    // DNS does not tell upper case from lower case.
    let namespace = function.namespace().to_ascii_lowercase();
    let is_listed = setting
        .split(',')
        .map(str::trim)
        .any(|name| name == "*" || name.to_ascii_lowercase() == namespace);
    let is_never =
        ["openfaas", "kube-system", "kube-public", "kube-node-lease"].contains(&namespace.as_str());
    let expected = !is_never && (is_listed || namespace == "openfaas-fn");
    assert_eq!(namespaces.check(&function, None).is_ok(), expected, "{function}");
});
