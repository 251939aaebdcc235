//! What is durable on this machine: the change log and the spool.
