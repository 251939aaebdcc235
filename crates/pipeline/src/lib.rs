//! The data plane: load, capture, replay, apply, verify; knows no engine.
