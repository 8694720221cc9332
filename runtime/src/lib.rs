//! The embedded CRI v1 runtime: images, sandboxes, containers, shim.
