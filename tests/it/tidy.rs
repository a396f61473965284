//! The house rules that a test can hold, so that nobody has to remember them. Reads the repository
//! as text and never changes it.

mod arrows;
mod pages;
mod purity;
mod requirements;
mod sources;
