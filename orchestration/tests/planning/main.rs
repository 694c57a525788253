//! What is planned, as a cluster that carries plans out goes through it.

mod placing;
mod simulation;
mod updates;
mod world;
