//! Where the name nodes of a logical HDFS name are, as Hadoop's own settings in `HADOOP_CONF_DIR` say.
//!
//! A file system with several name nodes has a logical name (`hdfs://analytics/backups`); `hdfs-site.xml` lists its name
//! nodes (`dfs.ha.namenodes.<name>`) and their addresses (`dfs.namenode.rpc-address.<name>.<node>`; Hadoop's page "HDFS High
//! Availability Using the Quorum Journal Manager"). The client finds out which of them is active.

use std::{collections::BTreeMap, fs, io, path::Path};

/// The settings cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HadoopError {
    /// A file cannot be read.
    #[error("Hadoop's settings in {path} cannot be read")]
    Read {
        /// The file.
        path: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A file is not XML.
    #[error("Hadoop's settings in {path} are not XML")]
    Xml {
        /// The file.
        path: String,
        /// What is wrong.
        #[source]
        source: roxmltree::Error,
    },
    /// The name is in none of them.
    #[error(
        "{name} is neither HOST:PORT of a name node nor a name that Hadoop's settings know (dfs.ha.namenodes.{name} in hdfs-site.xml below HADOOP_CONF_DIR)"
    )]
    Unknown {
        /// The name.
        name: String,
    },
}

/// The addresses of the name nodes of an HDFS URL's authority: itself if it has a port, else what Hadoop's settings in `folder` say.
///
/// # Errors
/// When they do not say it.
pub fn name_nodes(authority: &str, folder: Option<&Path>) -> Result<Vec<String>, HadoopError> {
    if authority
        .split(',')
        .all(|node| node.rsplit_once(':').is_some())
    {
        return Ok(authority.split(',').map(str::to_owned).collect());
    }
    let settings = folder.map(settings).transpose()?.unwrap_or_default();
    let unknown = || HadoopError::Unknown {
        name: authority.to_owned(),
    };
    let nodes = settings.get(&format!("dfs.ha.namenodes.{authority}"));
    let nodes = nodes.ok_or_else(unknown)?.split(',').map(str::trim);
    let address = |node: &str| {
        settings
            .get(&format!("dfs.namenode.rpc-address.{authority}.{node}"))
            .cloned()
    };
    nodes
        .map(|node| address(node).ok_or_else(unknown))
        .collect()
}

fn settings(folder: &Path) -> Result<BTreeMap<String, String>, HadoopError> {
    let mut settings = BTreeMap::new();
    for file in ["core-site.xml", "hdfs-site.xml"] {
        let path = folder.join(file);
        let shown = path.display().to_string();
        match fs::read_to_string(&path) {
            Ok(text) => {
                let read = read(&text);
                settings.extend(read.map_err(|source| HadoopError::Xml {
                    path: shown,
                    source,
                })?);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(HadoopError::Read {
                    path: shown,
                    source,
                });
            }
        }
    }
    Ok(settings)
}

/// `<configuration><property><name>..</name><value>..</value></property>..</configuration>`
fn read(text: &str) -> Result<BTreeMap<String, String>, roxmltree::Error> {
    let document = roxmltree::Document::parse(text)?;
    let properties = document
        .descendants()
        .filter(|node| node.has_tag_name("property"));
    let pair = |property: roxmltree::Node<'_, '_>| {
        let text = |tag| {
            let child = property.children().find(|child| child.has_tag_name(tag))?;
            Some(child.text().unwrap_or_default().trim().to_owned())
        };
        Some((text("name")?, text("value")?))
    };
    Ok(properties.filter_map(pair).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn a_logical_name_is_looked_up_and_an_address_is_itself() {
        let folder = tempfile::tempdir().unwrap();
        let site = "<?xml version=\"1.0\"?><configuration>\
            <property><name>dfs.ha.namenodes.big</name><value>a, b</value></property>\
            <property><name>dfs.namenode.rpc-address.big.a</name><value>one:8020</value></property>\
            <property><name>dfs.namenode.rpc-address.big.b</name><value> two:8020 </value></property>\
            <property><name>dfs.ha.namenodes.half</name><value>a</value></property>\
            </configuration>";
        fs::write(folder.path().join("hdfs-site.xml"), site).unwrap();
        let find = |authority: &str| name_nodes(authority, Some(folder.path()));
        assert_eq!(find("big").unwrap(), ["one:8020", "two:8020"]);
        assert_eq!(find("host:9000").unwrap(), ["host:9000"]);
        assert_eq!(find("a:1,b:2").unwrap(), ["a:1", "b:2"]);
        for unknown in ["half", "small"] {
            assert!(matches!(find(unknown), Err(HadoopError::Unknown { .. })));
        }
        assert!(name_nodes("big", None).is_err());
        fs::write(folder.path().join("core-site.xml"), "no xml").unwrap();
        assert!(matches!(find("big"), Err(HadoopError::Xml { .. })));
    }
}
