//! The typical job.

use std::time::Duration;

use crate::job::{JobSpec, JobSpecBuilder, NewJob, Resources, RetryPolicy};

/// Begins the spec of a typical job: a command of 4 arguments (38 bytes), 6 environment entries (names of 10 bytes,
/// values of 16) and 3 labels (names of 6 bytes, values of 8).
pub fn typical_spec() -> JobSpecBuilder {
    let spec = JobSpec::command(["/usr/bin/render", "--scene", "forest-7", "--hd-out"])
        .name("render-frame")
        .queue("renders")
        .resources(Resources::none().cpu_millis(1_500).memory(512 << 20))
        .timeout(Duration::from_secs(600))
        .retry(RetryPolicy::attempts(3));
    let spec =
        (0..6).fold(spec, |spec, n| spec.env(format!("SETTING_{n:02}"), format!("value-of-entry-{n}")));
    (0..3).fold(spec, |spec, n| spec.label(format!("label{n}"), format!("label-{n:02}")))
}

/// Makes a typical job with a spec of its own.
///
/// # Panics
///
/// Never: the typical spec is valid.
#[must_use]
pub fn typical_job() -> NewJob {
    NewJob::new(typical_spec().build().expect("the typical spec is valid"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Payload;

    #[test]
    fn it_has_the_lengths_it_says() {
        let spec = typical_spec().build().unwrap();
        let Payload::Command(command) = spec.payload() else { panic!("a command") };
        let lengths = |texts: Vec<&str>| texts.iter().map(|text| text.len()).collect::<Vec<_>>();
        assert_eq!(lengths(command.argv.iter().collect()), [15, 7, 8, 8]);
        assert!(command.env.iter().all(|(name, value)| (name.len(), value.len()) == (10, 16)));
        assert!(spec.labels().iter().all(|(name, value)| (name.len(), value.len()) == (6, 8)));
        assert_eq!((command.env.len(), spec.labels().len()), (6, 3));
    }
}
