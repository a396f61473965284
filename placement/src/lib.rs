//! The control plane: placement state machine, Raft, key custodian.
