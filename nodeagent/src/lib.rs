//! Runs pods on a node through CRI: lifecycle, volumes, probes, status, kubelet API.
