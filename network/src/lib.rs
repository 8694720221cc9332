//! Pod network, service proxy and cluster DNS: pure rule compilers and thin appliers.
