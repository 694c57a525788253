//! What is planned, as a cluster that carries plans out goes through it.

mod generated;
mod moves;
mod placing;
mod properties;
mod restarts;
mod simulation;
mod updates;
mod world;
