//! How much of a machine one member gets: the `size` of the REST API.
//!
//! A size is what Mesos is asked for; the executor's own share is carved out of it. Memory and disk
//! are counted in MiB, which is what Mesos calls MB, and cpus in thousandths, which is as precisely
//! as Mesos compares them (Mesos manual, "Attributes and Resources").

use std::fmt;

use serde::{Deserialize, Serialize};

/// Cpus, memory and disk of one member, the executor's share included.
///
/// In JSON: `{"cpus": 1.0, "mem": "512mb", "disk": "2gb"}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawSize", into = "RawSize")]
pub struct Size {
    cpu_millis: u32,
    mem_mib: u64,
    disk_mib: u64,
}

/// One thing that is wrong with a size, as a sentence.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SizeFault {
    /// The text is not a JSON object.
    #[error(
        "size must be a JSON object such as {{\"cpus\": 1.0, \"mem\": \"512mb\", \"disk\": \"2gb\"}}; {0}"
    )]
    NotAnObject(String),
    /// A key that a size does not have.
    #[error("size has the unknown key {0:?}; its keys are cpus, mem and disk")]
    UnknownKey(String),
    /// `cpus` is not a number.
    #[error("size: cpus must be a number such as 1.0, not {0}")]
    CpusNotANumber(String),
    /// Too few or too many cpus.
    #[error("size: cpus must be from {min} to {max}, not {given}", min = cpus(Size::MIN.cpu_millis), max = cpus(Size::MAX.cpu_millis))]
    CpusOutOfRange {
        /// What was given.
        given: String,
    },
    /// `mem` or `disk` is not an amount of data.
    #[error(
        "size: {key} must be an amount such as \"512mb\" with one of the units kb, mb, gb, tb, not {given}"
    )]
    NotAnAmount {
        /// `mem` or `disk`.
        key: &'static str,
        /// What was given.
        given: String,
    },
    /// Too little or too much memory or disk.
    #[error("size: {key} must be from {} to {}, not {}", Mebibytes(*.min), Mebibytes(*.max), Mebibytes(*.given))]
    AmountOutOfRange {
        /// `mem` or `disk`.
        key: &'static str,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
        /// What was given, in MiB.
        given: u64,
    },
}

impl Size {
    /// What a member gets when nothing is said.
    pub const DEFAULT: Self = Self {
        cpu_millis: 1000,
        mem_mib: 512,
        disk_mib: 2048,
    };

    /// What the executor itself takes out of a member's size: 0.01 cpus, 32 MB, 1 MB of disk.
    pub const EXECUTOR: Self = Self {
        cpu_millis: 10,
        mem_mib: 32,
        disk_mib: 1,
    };

    /// The least that a server of either flavour runs in, the executor's share included. Memory: what
    /// `mysql::mycnf::minimum_memory_mib` says, and some room. Disk: a fresh data directory with its redo log
    /// takes up to 200 MB before the first row is written.
    pub const MIN: Self = Self {
        cpu_millis: 100,
        mem_mib: 352,
        disk_mib: 512,
    };

    /// The most that can be asked for. It only keeps sums over many clusters within bounds: what is
    /// larger than every agent waits for an offer that never comes, and says so.
    pub const MAX: Self = Self {
        cpu_millis: 1_024_000,
        mem_mib: 64 * TIB_IN_MIB,
        disk_mib: 1024 * TIB_IN_MIB,
    };

    /// Reads the `size` field. Keys that are left out have their defaults.
    ///
    /// # Errors
    /// Everything that is wrong with it, not only the first thing.
    pub fn parse(text: &str) -> Result<Self, Vec<SizeFault>> {
        SizeChange::parse(text).map(|change| change.applied_to(Self::DEFAULT))
    }

    /// What an offer holds, in Mesos' amounts; memory and disk in MiB. Fractions of the least that is counted are left out, and the limits
    /// of what can be asked for do not matter.
    pub fn offered(cpus: f64, mem_mib: f64, disk_mib: f64) -> Self {
        Self {
            // Conversions of floats to whole numbers stop at the ends of their range.
            cpu_millis: (cpus * 1000.0).round() as u32,
            mem_mib: mem_mib as u64,
            disk_mib: disk_mib as u64,
        }
    }

    /// The cpus, as Mesos counts them.
    pub fn cpus(&self) -> f64 {
        cpus(self.cpu_millis)
    }

    /// The cpus in thousandths.
    pub const fn cpu_millis(&self) -> u32 {
        self.cpu_millis
    }

    /// The memory in MiB.
    pub const fn mem_mib(&self) -> u64 {
        self.mem_mib
    }

    /// The disk space in MiB.
    pub const fn disk_mib(&self) -> u64 {
        self.disk_mib
    }

    /// What remains for the MySQL server once the executor has its share.
    pub const fn server_share(&self) -> Self {
        // A size is at least `MIN`, which is larger than `EXECUTOR` in everything.
        Self {
            cpu_millis: self.cpu_millis.saturating_sub(Self::EXECUTOR.cpu_millis),
            mem_mib: self.mem_mib.saturating_sub(Self::EXECUTOR.mem_mib),
            disk_mib: self.disk_mib.saturating_sub(Self::EXECUTOR.disk_mib),
        }
    }
}

/// Other amounts than there were. `None` leaves one as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SizeChange {
    cpu_millis: Option<u32>,
    mem_mib: Option<u64>,
    disk_mib: Option<u64>,
}

impl SizeChange {
    /// Reads the `size` field.
    ///
    /// # Errors
    /// Everything that is wrong with it, not only the first thing.
    pub fn parse(text: &str) -> Result<Self, Vec<SizeFault>> {
        let value: serde_json::Value = serde_json::from_str(text)
            .map_err(|error| vec![SizeFault::NotAnObject(format!("this is not JSON: {error}"))])?;
        let serde_json::Value::Object(object) = value else {
            return Err(vec![SizeFault::NotAnObject(
                "this is another kind of JSON".to_owned(),
            )]);
        };
        let mut change = Self::default();
        let mut faults = Vec::new();
        for (key, value) in &object {
            faults.extend(change.read(key, value).err());
        }
        if faults.is_empty() {
            Ok(change)
        } else {
            Err(faults)
        }
    }

    /// Reads one amount that is given by itself, such as `cpus=1.5` or `mem=1gb`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn set(&mut self, key: &str, text: &str) -> Result<(), SizeFault> {
        let number = text.parse::<f64>().ok().filter(|_| key == "cpus");
        let number = number.and_then(serde_json::Number::from_f64);
        let value = number.map_or_else(|| text.into(), serde_json::Value::Number);
        self.read(key, &value)
    }

    fn read(&mut self, key: &str, value: &serde_json::Value) -> Result<(), SizeFault> {
        let (min, max) = (Size::MIN, Size::MAX);
        match key {
            "cpus" => read_cpus(value).map(|given| self.cpu_millis = Some(given)),
            "mem" => read_amount("mem", value, min.mem_mib, max.mem_mib)
                .map(|given| self.mem_mib = Some(given)),
            "disk" => read_amount("disk", value, min.disk_mib, max.disk_mib)
                .map(|given| self.disk_mib = Some(given)),
            _ => Err(SizeFault::UnknownKey(shortened(key))),
        }
    }

    /// A size with these amounts in the place of its own.
    pub fn applied_to(self, size: Size) -> Size {
        Size {
            cpu_millis: self.cpu_millis.unwrap_or(size.cpu_millis),
            mem_mib: self.mem_mib.unwrap_or(size.mem_mib),
            disk_mib: self.disk_mib.unwrap_or(size.disk_mib),
        }
    }
}

impl Default for Size {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cpus, mem, disk) = (
            self.cpus(),
            Mebibytes(self.mem_mib),
            Mebibytes(self.disk_mib),
        );
        write!(f, "{cpus} cpus, {mem} memory, {disk} disk")
    }
}

/// A size as it is stored and shown.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSize {
    cpus: f64,
    mem: String,
    disk: String,
}

impl From<Size> for RawSize {
    fn from(size: Size) -> Self {
        Self {
            cpus: size.cpus(),
            mem: Mebibytes(size.mem_mib).to_string(),
            disk: Mebibytes(size.disk_mib).to_string(),
        }
    }
}

impl TryFrom<RawSize> for Size {
    type Error = SizeFault;

    /// Limits are those of the door only: a stored size stays valid when they change.
    fn try_from(raw: RawSize) -> Result<Self, Self::Error> {
        let amount = |key, text: &str| {
            parse_mebibytes(text).ok_or_else(|| SizeFault::NotAnAmount {
                key,
                given: shortened(text),
            })
        };
        Ok(Self {
            cpu_millis: cpu_millis(raw.cpus)
                .ok_or_else(|| SizeFault::CpusNotANumber(raw.cpus.to_string()))?,
            mem_mib: amount("mem", &raw.mem)?,
            disk_mib: amount("disk", &raw.disk)?,
        })
    }
}

/// An amount in MiB, shown in the largest unit that has it as a whole number.
struct Mebibytes(u64);

const GIB_IN_MIB: u64 = 1024;
const TIB_IN_MIB: u64 = 1024 * GIB_IN_MIB;

impl fmt::Display for Mebibytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n > 0 && n % TIB_IN_MIB == 0 => write!(f, "{}tb", n / TIB_IN_MIB),
            n if n > 0 && n % GIB_IN_MIB == 0 => write!(f, "{}gb", n / GIB_IN_MIB),
            n => write!(f, "{n}mb"),
        }
    }
}

fn cpus(millis: u32) -> f64 {
    f64::from(millis) / 1000.0
}

fn cpu_millis(cpus: f64) -> Option<u32> {
    let millis = (cpus * 1000.0).round();
    // The comparison is also false for NaN; the cast is exact within it.
    (0.0..=f64::from(u32::MAX))
        .contains(&millis)
        .then_some(millis as u32)
}

fn read_cpus(value: &serde_json::Value) -> Result<u32, SizeFault> {
    let given = value
        .as_f64()
        .ok_or_else(|| SizeFault::CpusNotANumber(shortened(&value.to_string())))?;
    cpu_millis(given)
        .filter(|millis| (Size::MIN.cpu_millis..=Size::MAX.cpu_millis).contains(millis))
        .ok_or_else(|| SizeFault::CpusOutOfRange {
            given: shortened(&value.to_string()),
        })
}

fn read_amount(
    key: &'static str,
    value: &serde_json::Value,
    min: u64,
    max: u64,
) -> Result<u64, SizeFault> {
    let given = value
        .as_str()
        .and_then(parse_mebibytes)
        .ok_or_else(|| SizeFault::NotAnAmount {
            key,
            given: shortened(&value.to_string()),
        })?;
    if (min..=max).contains(&given) {
        Ok(given)
    } else {
        Err(SizeFault::AmountOutOfRange {
            key,
            min,
            max,
            given,
        })
    }
}

/// Reads an amount such as `512mb`, `1.5gb` or `2 TB`; what is not a whole number of MiB is rounded up.
/// The units are powers of 1024, as they were for the original's `kb`, `mb`, `gb` and `tb`.
fn parse_mebibytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let unit_at = text
        .len()
        .checked_sub(2)
        .filter(|at| text.is_char_boundary(*at))?;
    let (number, unit) = text.split_at(unit_at);
    let mib_per_unit = match unit.to_ascii_lowercase().as_str() {
        "kb" => 1.0 / 1024.0,
        "mb" => 1.0,
        "gb" => GIB_IN_MIB as f64,
        "tb" => TIB_IN_MIB as f64,
        _ => return None,
    };
    let number = number.trim_end();
    let digits_and_a_point = number.chars().all(|c| c.is_ascii_digit() || c == '.');
    let number: f64 = digits_and_a_point.then(|| number.parse().ok())??;
    let mib = (number * mib_per_unit).ceil();
    // Integers are exact in an f64 up to 2^53, which is far above every limit here.
    (mib <= (1_u64 << 53) as f64).then_some(mib as u64)
}

/// A text from outside in a sentence of ours: not longer than a sentence should be.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use proptest::prelude::*;

    use super::*;
    use crate::{cluster::flavour::Flavour, mysql::mycnf::minimum_memory_mib};

    #[test]
    fn the_default_is_that_of_the_user_guide() {
        assert_eq!(
            serde_json::to_string(&Size::DEFAULT).unwrap(),
            r#"{"cpus":1.0,"mem":"512mb","disk":"2gb"}"#
        );
        assert_eq!(Size::parse("{}"), Ok(Size::DEFAULT));
    }

    #[test]
    fn sizes_are_read_in_every_unit() {
        for (text, cpu_millis, mem_mib, disk_mib) in [
            (
                r#"{"mem": "1gb", "disk": "3gb", "cpus": 1.0}"#,
                1000,
                1024,
                3072,
            ),
            (r#"{"mem": "1048576kb"}"#, 1000, 1024, 2048),
            (r#"{"mem": "1.5gb"}"#, 1000, 1536, 2048),
            (r#"{"disk": "2TB"}"#, 1000, 512, 2_097_152),
            (r#"{"disk": " 600 mb "}"#, 1000, 512, 600),
            (r#"{"mem": "524289kb"}"#, 1000, 513, 2048),
            (r#"{"cpus": 2}"#, 2000, 512, 2048),
            (r#"{"cpus": 0.25}"#, 250, 512, 2048),
        ] {
            assert_eq!(
                Size::parse(text),
                Ok(Size {
                    cpu_millis,
                    mem_mib,
                    disk_mib
                }),
                "{text}"
            );
        }
    }

    #[test]
    fn wrong_sizes_and_their_sentences() {
        for (text, sentence) in [
            (
                "",
                "size must be a JSON object such as {\"cpus\": 1.0, \"mem\": \"512mb\", \"disk\": \"2gb\"}; this is not JSON: EOF while parsing a value at line 1 column 0",
            ),
            (
                "[]",
                "size must be a JSON object such as {\"cpus\": 1.0, \"mem\": \"512mb\", \"disk\": \"2gb\"}; this is another kind of JSON",
            ),
            (
                r#"{"memory": "1gb"}"#,
                "size has the unknown key \"memory\"; its keys are cpus, mem and disk",
            ),
            (
                r#"{"cpus": "many"}"#,
                "size: cpus must be a number such as 1.0, not \"many\"",
            ),
            (
                r#"{"cpus": 0.01}"#,
                "size: cpus must be from 0.1 to 1024, not 0.01",
            ),
            (
                r#"{"cpus": -1}"#,
                "size: cpus must be from 0.1 to 1024, not -1",
            ),
            (
                r#"{"cpus": 1e300}"#,
                "size: cpus must be from 0.1 to 1024, not 1e+300",
            ),
            (
                r#"{"mem": 512}"#,
                "size: mem must be an amount such as \"512mb\" with one of the units kb, mb, gb, tb, not 512",
            ),
            (
                r#"{"mem": "512"}"#,
                "size: mem must be an amount such as \"512mb\" with one of the units kb, mb, gb, tb, not \"512\"",
            ),
            (
                r#"{"mem": "mb"}"#,
                "size: mem must be an amount such as \"512mb\" with one of the units kb, mb, gb, tb, not \"mb\"",
            ),
            (
                r#"{"mem": "-1gb"}"#,
                "size: mem must be an amount such as \"512mb\" with one of the units kb, mb, gb, tb, not \"-1gb\"",
            ),
            (
                r#"{"mem": "1eb"}"#,
                "size: mem must be an amount such as \"512mb\" with one of the units kb, mb, gb, tb, not \"1eb\"",
            ),
            (
                r#"{"mem": "€b"}"#,
                "size: mem must be an amount such as \"512mb\" with one of the units kb, mb, gb, tb, not \"€b\"",
            ),
            (
                r#"{"mem": "32mb"}"#,
                "size: mem must be from 352mb to 64tb, not 32mb",
            ),
            (
                r#"{"mem": "65tb"}"#,
                "size: mem must be from 352mb to 64tb, not 65tb",
            ),
            (
                r#"{"disk": "1mb"}"#,
                "size: disk must be from 512mb to 1024tb, not 1mb",
            ),
        ] {
            let faults = Size::parse(text).unwrap_err();
            assert_eq!(faults[0].to_string(), sentence, "{text}");
            assert_eq!(faults.len(), 1, "{text}");
        }
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let faults = Size::parse(r#"{"cpus": 0, "mem": "1", "disk": "0gb", "x": 1}"#).unwrap_err();
        assert_eq!(faults.len(), 4);
    }

    #[test]
    fn the_executor_gets_its_share_out_of_the_size() {
        let share = Size::DEFAULT.server_share();
        assert_eq!(
            (share.cpu_millis, share.mem_mib, share.disk_mib),
            (990, 480, 2047)
        );
    }

    #[test]
    fn the_least_size_is_enough_for_both_flavours() {
        for flavour in [Flavour::Mysql, Flavour::Mariadb] {
            assert!(
                Size::MIN.server_share().mem_mib >= minimum_memory_mib(flavour),
                "{flavour}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_stored_reads_the_same(cpu_millis in 0..=u32::MAX, mem_mib in 0..1_u64 << 40, disk_mib in 0..1_u64 << 40) {
            let size = Size { cpu_millis, mem_mib, disk_mib };
            let text = serde_json::to_string(&size).unwrap();
            prop_assert_eq!(serde_json::from_str::<Size>(&text).unwrap(), size);
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = Size::parse(&text);
            let _ = parse_mebibytes(&text);
        }
    }
}
