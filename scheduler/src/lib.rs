//! Decides which node runs a pod: pure engine, thin driver.
