//! The executor, whole: the real binary under a scripted agent, with real servers and a real ZooKeeper.

mod agent;
mod life;
mod world;
