//! The REST API and the web page.
//!
//! A request is read and bounded (`forms`), checked (`cluster::spec`), handed to the scheduler's core through
//! its `port` and answered (`clusters`); what only reads looks at the core's last published views and never
//! stands in its queue. `errors` turns every refusal into `application/problem+json`. `leader` passes requests on where another scheduler leads. `routes` is the table
//! of all of it, `server` what accepts connections.

pub mod backups;
pub mod changes;
pub mod clusters;
pub mod errors;
pub mod executor_binary;
pub mod explain;
pub mod forms;
pub mod leader;
pub mod metrics;
pub mod page;
pub mod patience;
pub mod port;
pub mod restarts;
mod routes;
mod server;
pub mod slots;
pub mod unknown_tasks;

pub use routes::router;
pub use server::serve;
