//! Backups: where they are stored, what describes them, and how data travels into a store and back.
//!
//! A backup is one stream of a server's data ([`stream`]: compressed, encrypted if there is a key, with a digest) and a
//! manifest ([`manifest`]) that is written when the stream is complete, so that an unfinished backup is never taken for one. Both lie in a
//! [`store`]. Who makes a backup of which server, and which cluster is made from one, is decided elsewhere
//! (`scheduler`, `executor`). Behind a backup the binlogs are archived ([`archive`], [`binlog`]); `docs/design/backup.md` tells the whole course.

pub mod archive;
pub mod binlog;
pub mod cipher;
pub mod hadoop;
pub mod hdfs;
pub mod manifest;
pub mod removal;
pub mod retention;
pub mod store;
pub mod stream;
pub mod verified;
