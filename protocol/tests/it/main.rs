//! The wire as others see it: frozen bytes, round trips, hostile bytes, and the pages that describe them.

mod allocation;
mod draw;
mod golden;
mod hostile;
mod pages;
mod papers;
mod round_trip;
mod shapes;
