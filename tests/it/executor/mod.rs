//! The executor, whole: the real binary under a scripted agent, with real servers and a real ZooKeeper.

mod agent;
mod cluster;
mod from_backup;
mod health;
mod life;
mod rebuild;
mod verification;
mod world;
