#!/usr/bin/env bash
# Creates a cluster, finds its master through service discovery, uses it, and deletes it again.
#
#     examples/create-and-use.sh http://scheduler.example.com:8080 [NAME]
#
# Needs curl, jq, a MySQL client, and ZooKeeper's own command line (Debian's package zookeeper).
set -euo pipefail

api=${1:?"usage: create-and-use.sh API_URL [NAME]"}
name=${2:-example}
deadline=$((SECONDS + 300))

# Asks ZooKeeper; zkCli.sh prints the data, the list of children or what is wrong last.
ask_zookeeper() { /usr/share/zookeeper/bin/zkCli.sh -server "$servers" "$@" 2>&1 | tail -n 1; }

# The answer comes as soon as the request is recorded, long before the servers run.
answer=$(curl -sS --fail-with-body -X POST "$api/clusters/$name" --form "cluster_user=app" --form "num_nodes=1")
password=$(jq -r .cluster_password <<<"$answer")
url=$(jq -r .cluster_url <<<"$answer")
echo "The cluster will be found at $url"

# zk://servers/path: below path, `master` holds at most one node, whose data says where the master is.
servers=${url#zk://}
path=/${servers#*/}
servers=${servers%%/*}
until [[ $(ask_zookeeper ls "$path/master") =~ ^\[(member_[0-9]+)\]$ ]]; do
    ((SECONDS < deadline)) || { echo "there is no master after 300 s" >&2; exit 1; }
    sleep 1
done
instance=$(ask_zookeeper get "$path/master/${BASH_REMATCH[1]}")
host=$(jq -r .serviceEndpoint.host <<<"$instance")
port=$(jq -r .serviceEndpoint.port <<<"$instance")
echo "Its master is at $host:$port"

# MYSQL_PWD keeps the password off the command line, where every user of the machine could read it.
MYSQL_PWD=$password mariadb -h "$host" -P "$port" -u app -t -e "
    CREATE DATABASE shop;
    CREATE TABLE shop.orders (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(40));
    INSERT INTO shop.orders (what) VALUES ('Hello from the master');
    SELECT * FROM shop.orders"

# Deleting is asked for too; the cluster is gone when its node in discovery is.
curl -sS --fail-with-body -X DELETE "$api/clusters/$name" --form "password=$password"
echo
until [[ $(ask_zookeeper stat "$path") == "Node does not exist"* ]]; do
    ((SECONDS < deadline)) || { echo "the cluster is still there after 300 s" >&2; exit 1; }
    sleep 1
done
echo "The cluster is gone."
