//! Job records, the state machine and the progress bus.
