//! The client's decisions without its sockets: where a key lives, which token a mutation carries, when
//! to ask again and when to give up.
//!
//! Every machine here takes the time and an [`Event`] and says what to do next; the shell does it, and
//! so does the simulator. Nothing here may read a clock, draw randomness or wait.
