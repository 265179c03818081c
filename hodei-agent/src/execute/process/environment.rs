//! The environment of a job: nothing of the agent's but what is listed.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
};

/// The variables of the host a job gets unless told otherwise: where programs, home and temporary files are, and in
/// which language to speak. None of them is a secret.
pub(crate) const INHERITED_BY_DEFAULT: [&str; 4] = ["HOME", "LANG", "PATH", "TMPDIR"];

/// Builds the whole environment of a job. Later sources win: listed variables of `host`, then `spec` (what the job
/// asks for), then `hodei` (what the agent tells the job), which a spec can not replace.
pub(crate) fn environment(
    host: &BTreeMap<OsString, OsString>,
    inherited: &[&str],
    spec: &BTreeMap<String, String>,
    hodei: &BTreeMap<String, String>,
) -> BTreeMap<OsString, OsString> {
    let inherited = inherited.iter().filter_map(|name| host.get_key_value(OsStr::new(name)));
    let mut vars: BTreeMap<_, _> = inherited.map(|(name, value)| (name.clone(), value.clone())).collect();
    vars.extend(spec.iter().chain(hodei).map(|(name, value)| (name.into(), value.into())));
    vars
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map<S: From<&'static str> + Ord>(pairs: &[(&'static str, &'static str)]) -> BTreeMap<S, S> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn only_what_is_listed_is_inherited() {
        let host =
            map(&[("PATH", "/bin"), ("AWS_SECRET_ACCESS_KEY", "x"), ("PATHS", "y"), ("HOME", "/root")]);
        let vars = environment(&host, &INHERITED_BY_DEFAULT, &map(&[]), &map(&[]));
        assert_eq!(vars, map(&[("PATH", "/bin"), ("HOME", "/root")]));
    }

    #[test]
    fn the_agent_wins_over_the_spec_and_the_spec_over_the_host() {
        let host = map(&[("PATH", "/bin"), ("LANG", "C")]);
        let spec = map(&[("PATH", "/opt/bin"), ("HODEI_JOB", "forged")]);
        let vars = environment(&host, &INHERITED_BY_DEFAULT, &spec, &map(&[("HODEI_JOB", "j1")]));
        assert_eq!(vars, map(&[("LANG", "C"), ("PATH", "/opt/bin"), ("HODEI_JOB", "j1")]));
    }

    #[test]
    fn an_empty_list_inherits_nothing() {
        assert!(environment(&map(&[("PATH", "/bin")]), &[], &map(&[]), &map(&[])).is_empty());
    }
}
