//! The skiff binary: kubectl-like command line and the server roles.
