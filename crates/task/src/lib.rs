//! The task file: from YAML to a checked task.
