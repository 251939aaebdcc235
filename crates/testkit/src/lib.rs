//! What tests share: a memory engine, fault wrappers, contract suites, private servers.
