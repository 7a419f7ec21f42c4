//! How a server's memory is divided. Pure.

use super::{Line, MyCnfError, line};
use crate::cluster::flavour::Flavour;

/// What mysqld needs besides its buffer pool, in MiB, with the performance schema off and the caches set as below: itself,
/// its threads, the data dictionary, and a dozen busy connections.
///
/// Measured as resident memory with the buffer pool full: see `docs/measurements.md`.
const fn fixed_cost_mib(flavour: Flavour) -> u64 {
    match flavour {
        Flavour::Mysql => 260,
        Flavour::Mariadb => 110,
    }
}

/// The smallest buffer pool with which a server is of use, in MiB.
const SMALLEST_POOL_MIB: u64 = 32;

/// The most of the memory that the buffer pool gets.
const POOL_SHARE_PERCENT: u64 = 75;

/// What a MiB of buffer pool takes besides itself, in percent: page descriptors, hash tables, locks.
const POOL_OVERHEAD_PERCENT: u64 = 10;

/// From here on MySQL's performance schema is on; it takes about 230 MiB with the default settings.
const PERFORMANCE_SCHEMA_FROM_MIB: u64 = 2048;

/// What the performance schema takes, in MiB.
const PERFORMANCE_SCHEMA_MIB: u64 = 256;

/// The least memory that a server of this flavour runs in, in MiB.
pub const fn minimum_memory_mib(flavour: Flavour) -> u64 {
    fixed_cost_mib(flavour) + SMALLEST_POOL_MIB * (100 + POOL_OVERHEAD_PERCENT) / 100 + 1
}

/// The settings that divide the memory.
pub fn lines(flavour: Flavour, memory_mib: u64) -> Result<Vec<Line>, MyCnfError> {
    let needed = minimum_memory_mib(flavour);
    if memory_mib < needed {
        return Err(MyCnfError::TooLittleMemory {
            flavour,
            needed,
            given: memory_mib,
        });
    }
    let performance_schema = flavour == Flavour::Mysql && memory_mib >= PERFORMANCE_SCHEMA_FROM_MIB;
    let fixed = fixed_cost_mib(flavour)
        + if performance_schema {
            PERFORMANCE_SCHEMA_MIB
        } else {
            0
        };
    let left = (memory_mib - fixed) * 100 / (100 + POOL_OVERHEAD_PERCENT);
    let pool = left.min(memory_mib * POOL_SHARE_PERCENT / 100);
    // The server rounds the pool *up* to whole chunks, and by default a chunk has 128 MiB.
    let chunk = if pool < 4096 { 8 } else { 128 };
    let pool = pool / chunk * chunk;
    let small = memory_mib < PERFORMANCE_SCHEMA_FROM_MIB;
    // What one statement's temporary table may take before it goes to disk; every connection may have one.
    let table = (memory_mib / 256).clamp(1, 16);
    let mut lines = vec![
        line("innodb_buffer_pool_size", format!("{pool}M")),
        line("innodb_buffer_pool_chunk_size", format!("{chunk}M")),
        line(
            "performance_schema",
            if performance_schema { "ON" } else { "OFF" },
        ),
        line("tmp_table_size", format!("{table}M")),
        line("max_heap_table_size", format!("{table}M")),
    ];
    if small {
        // The defaults take up to 64 MiB, and 20 MiB for some thousand tables.
        lines.push(line("innodb_log_buffer_size", "8M"));
        lines.push(line("table_definition_cache", 400));
        lines.push(line("table_open_cache", 400));
    }
    match flavour {
        Flavour::Mysql => {
            // What the temporary tables of all connections together may take. The default is 1 GiB.
            lines.push(line(
                "temptable_max_ram",
                format!("{}M", (memory_mib / 32).clamp(8, 1024)),
            ));
            if small {
                // What the appliers may queue; a greater transaction waits until the queue is empty. The default is 128 MiB.
                lines.push(line("replica_pending_jobs_size_max", "16M"));
            }
        }
        Flavour::Mariadb => {
            // Its own tables and those for sorting are Aria; the default is 128 MiB, whatever the memory.
            let aria = (memory_mib / 32).clamp(8, 128);
            lines.push(line("aria_pagecache_buffer_size", format!("{aria}M")));
            lines.push(line("key_buffer_size", "1M"));
        }
    }
    Ok(lines)
}
