//! How all property tests run.

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

/// Returns the common settings. An input that fails is kept in a file and tried first from then on.
pub fn config() -> ProptestConfig {
    let kept = FileFailurePersistence::Direct("tests/proptest-regressions.txt");
    ProptestConfig {
        cases: 20_000,
        failure_persistence: Some(Box::new(kept)),
        ..ProptestConfig::default()
    }
}
