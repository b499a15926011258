//! The ground that the tests and the demo stand on.
