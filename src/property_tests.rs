//! How all property tests run.

use std::env;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

/// How many inputs a test tries if the variable `PROPTEST_CASES` does not say.
const CASES: u32 = 2_000;

/// Returns the common settings. An input that fails is kept in a file and tried first from then on.
pub fn config() -> ProptestConfig {
    let kept = FileFailurePersistence::Direct("tests/proptest-regressions.txt");
    let mut config = ProptestConfig {
        failure_persistence: Some(Box::new(kept)),
        ..ProptestConfig::default()
    };
    if env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    config
}
