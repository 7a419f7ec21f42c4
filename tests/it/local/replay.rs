//! Plays the scheduler's side of a recording against the stand-in and compares the other side.
//!
//! What differs from run to run (ids, uuids, times, ports, processes) is bound: the first time that a
//! recorded value meets another one, the two are taken to be the same from then on, both in what is
//! sent and in what is expected. Everything else must be equal.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::web::{self, Answer, Events};
use crate::support::eventually;
use crate::transcript::Entry;

/// How long an offer may be missing before those that are there are given back.
const REGROUP_AFTER: Duration = Duration::from_secs(2);

/// Numbers of these fields differ from run to run.
const FREE_NUMBERS: [&str; 6] = [
    "timestamp",
    "executor_pid",
    "nanoseconds",
    "port",
    "ip",
    "heartbeat_interval_seconds",
];

/// Texts of these fields differ from run to run. Ids that a framework chose are not among them.
fn is_free_text(field: &str, recorded: &str) -> bool {
    let id = recorded.len() >= 36 && recorded.chars().filter(|letter| *letter == '-').count() >= 4;
    let uuid = field == "uuid" && recorded.ends_with("==");
    id || uuid || field == "pid"
}

/// Recorded values and what they are in this run.
#[derive(Debug, Default, Clone)]
pub struct Bindings(HashMap<String, String>);

impl Bindings {
    pub fn bind(&mut self, recorded: &str, actual: &str) {
        self.0.insert(recorded.to_owned(), actual.to_owned());
    }

    /// A recorded text as it is in this run: whole values, and ids within sentences.
    pub fn apply(&self, text: &str) -> String {
        let mut pairs: Vec<_> = self.0.iter().collect();
        // Longer ones first: an agent's id begins with its master's.
        pairs.sort_by_key(|(recorded, _)| std::cmp::Reverse(recorded.len()));
        let mut text = text.to_owned();
        for (recorded, actual) in pairs {
            text = text.replace(recorded.as_str(), actual);
        }
        text
    }

    fn same_text(&mut self, field: &str, recorded: &str, actual: &str) -> bool {
        if let Some(bound) = self.0.get(recorded) {
            return bound == actual;
        }
        if recorded == actual || self.apply(recorded) == actual {
            return true;
        }
        if field == "message" {
            return same_sentence(&self.apply(recorded), actual);
        }
        let free = is_free_text(field, recorded);
        if free {
            self.bind(recorded, actual);
        }
        free
    }

    fn same_in_any_order(&mut self, recorded: &[Value], actual: &[Value]) -> bool {
        let mut left: Vec<&Value> = actual.iter().collect();
        recorded.len() == actual.len()
            && recorded.iter().all(|one| {
                let found = left.iter().position(|other| {
                    let mut bindings = self.clone();
                    let same = bindings.same("", one, other);
                    if same {
                        *self = bindings;
                    }
                    same
                });
                found.map(|index| left.remove(index)).is_some()
            })
    }

    /// Compares and binds; what is bound when the comparison fails must be thrown away.
    pub fn same(&mut self, field: &str, recorded: &Value, actual: &Value) -> bool {
        match (recorded, actual) {
            (Value::String(recorded), Value::String(actual)) => {
                self.same_text(field, recorded, actual)
            }
            (Value::Number(_), Value::Number(_)) if FREE_NUMBERS.contains(&field) => true,
            (Value::Number(recorded), Value::Number(actual)) => {
                recorded.as_f64() == actual.as_f64()
            }
            // The order of resources is that of Mesos' hash tables.
            (Value::Array(recorded), Value::Array(actual)) if field == "resources" => {
                self.same_in_any_order(recorded, actual)
            }
            (Value::Array(recorded), Value::Array(actual)) => {
                let mut pairs = recorded.iter().zip(actual);
                recorded.len() == actual.len()
                    && pairs.all(|(left, right)| self.same(field, left, right))
            }
            (Value::Object(recorded), Value::Object(actual)) => {
                // The names' order must not matter for what is bound: ids first.
                let same_names = recorded.keys().eq(actual.keys());
                same_names
                    && recorded.iter().all(|(name, left)| {
                        // The `value` of an id belongs to the field around it.
                        let field = if name == "value" { field } else { name };
                        self.same(field, left, &actual[name])
                    })
            }
            (recorded, actual) => recorded == actual,
        }
    }
}

/// The lists of resources in a sentence, each in an order of its own.
fn with_sorted_lists(sentence: &str) -> Vec<Vec<&str>> {
    const BETWEEN: [&str; 3] = [
        "Total resources ",
        " required by task and its executor is more than available ",
        " does not contain ",
    ];
    let mut parts = vec![sentence];
    for between in BETWEEN {
        parts = parts
            .into_iter()
            .flat_map(|part| part.split(between))
            .collect();
    }
    let mut lists: Vec<Vec<&str>> = Vec::new();
    for part in parts {
        let mut list: Vec<&str> = part.split("; ").collect();
        list.sort_unstable();
        lists.push(list);
    }
    lists
}

/// Container ids stand in sentences and differ, and the order of resources in lists.
fn same_sentence(recorded: &str, actual: &str) -> bool {
    if with_sorted_lists(recorded) == with_sorted_lists(actual) {
        return true;
    }
    let mask = |text: &str| {
        let parts: Vec<String> = text
            .split('\'')
            .enumerate()
            .map(|(index, part)| {
                if index % 2 == 1 && part.len() == 36 {
                    "<id>".to_owned()
                } else {
                    part.to_owned()
                }
            })
            .collect();
        parts.join("'")
    };
    mask(recorded) == mask(actual)
}

/// The player.
pub struct Player {
    pub url: String,
    pub bindings: Bindings,
    pub events: Events,
    answer: Option<Answer>,
    operator: Option<Answer>,
    streams_ended: usize,
    /// The newest one that was not refused.
    stream: Option<String>,
}

impl Player {
    pub fn new(master_url: &str) -> Self {
        Self {
            url: master_url.to_owned(),
            bindings: Bindings::default(),
            events: Events::default(),
            answer: None,
            operator: None,
            streams_ended: 0,
            stream: None,
        }
    }

    /// A player that goes on with what a scheduler has begun.
    pub fn of(master_url: &str, events: &Events) -> Self {
        Self {
            events: events.clone(),
            ..Self::new(master_url)
        }
    }

    /// Plays a recording.
    pub async fn play(&mut self, entries: &[Entry]) {
        for entry in entries {
            let head = entry.head.as_str();
            let at = format!("at {} {head}", entry.time);
            match entry.who.as_str() {
                "scheduler" => {}
                "operator" => {
                    self.operate(head, &entry.body, &at).await;
                    continue;
                }
                _ => continue,
            }
            if let Some(request) = head.strip_prefix(">> ") {
                self.send(request, &entry.body).await;
            } else if head.starts_with("<< event OFFERS") {
                self.expect_offers(&entry.body, &at).await;
            } else if head.starts_with("<< event ") {
                self.expect_event(&serde_json::from_str(&entry.body).unwrap(), &at)
                    .await;
            } else if head.starts_with("<< stream closed") {
                self.streams_ended += 1;
                let expected = self.streams_ended;
                eventually(&at, web::DEADLINE, || async {
                    (self.events.closed_count() >= expected).then_some(())
                })
                .await;
            } else if let Some(answer) = head.strip_prefix("<< ") {
                self.expect_answer(answer, &entry.body, &at).await;
            }
        }
    }

    /// Plays what is recorded of a scheduler that is sent from one master to the other until one
    /// leads: as often as that takes here.
    pub async fn play_redirects(&mut self, entries: &[Entry]) {
        let pairs: Vec<_> = entries.chunks(2).map(|pair| (&pair[0], &pair[1])).collect();
        let (first, (last_call, last_answer)) = (pairs[0], pairs[pairs.len() - 1]);
        let redirect = first.1.head.strip_prefix("<< 307").unwrap();
        let mut redirects = 0;
        loop {
            let request = last_call.head.strip_prefix(">> ").unwrap();
            self.send(request, &last_call.body).await;
            match self.answer.as_ref().unwrap().status {
                307 => {
                    redirects += 1;
                    let recorded = format!("307{redirect}");
                    self.expect_answer(&recorded, &first.1.body, "a redirect")
                        .await;
                }
                // It has just been started and has not asked ZooKeeper.
                503 => {}
                _ => break,
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(redirects > 0, "the master that was killed led at once");
        let recorded = last_answer.head.strip_prefix("<< ").unwrap();
        self.expect_answer(recorded, &last_answer.body, "the end of the redirects")
            .await;
    }

    /// `>> POST /api/v1 {}` and `<< 200 OK` of the operator API.
    async fn operate(&mut self, head: &str, body: &str, at: &str) {
        if head.starts_with(">> POST /api/v1") {
            let text = self.bindings.apply(body);
            self.operator = Some(web::post_text(&self.url, "/api/v1", &text).await);
            return;
        }
        let answer = self.operator.take().unwrap();
        let status = head.split(' ').nth(1).unwrap();
        assert_eq!(answer.status.to_string(), status, "{at}: {}", answer.text);
        assert_eq!(answer.text, self.bindings.apply(body), "{at}");
    }

    /// `POST /api/v1/scheduler {"Content-Type": ...}`
    async fn send(&mut self, request: &str, body: &str) {
        let mut words = request.splitn(3, ' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let recorded: HashMap<String, String> =
            serde_json::from_str(words.next().unwrap()).unwrap();
        let mut headers = Vec::new();
        for (name, value) in recorded.iter().filter(|(name, _)| *name != "Connection") {
            headers.push((name.clone(), self.bindings.apply(value)));
        }
        if recorded.len() == 1 && recorded.contains_key("Mesos-Stream-Id") {
            // The recording leaves out what its client always sent.
            headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
        }
        let url = format!("{}{path}", self.url);
        let response = web::ask(method, &url, &headers, &self.bindings.apply(body)).await;
        if response.status() == 200 && response.headers().contains_key("mesos-stream-id") {
            let headers = response.headers().clone();
            self.events.read(response.into_body());
            self.answer = Some(Answer {
                status: 200,
                headers,
                text: String::new(),
            });
        } else {
            self.answer = Some(web::whole(response).await);
        }
    }

    /// `400 Bad Request {"Content-Type": ...}`
    async fn expect_answer(&mut self, recorded: &str, body: &str, at: &str) {
        let answer = self
            .answer
            .take()
            .unwrap_or_else(|| panic!("{at}: nothing was asked"));
        let status: u16 = recorded.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(answer.status, status, "{at}: {}", answer.text);
        if let Some(start) = recorded.find('{') {
            let headers: HashMap<String, String> =
                serde_json::from_str(&recorded[start..]).unwrap();
            self.compare_headers(&headers, &answer, at);
        }
        match body.split_once('\n') {
            // An event, written down as it came.
            Some((length, event)) if length.parse::<usize>().is_ok() => {
                self.expect_event(&serde_json::from_str(event).unwrap(), at)
                    .await;
            }
            _ if status == 200 => {
                let stream = answer.headers["mesos-stream-id"].to_str().unwrap();
                self.stream = Some(stream.to_owned());
            }
            _ => assert_eq!(answer.text, self.bindings.apply(body), "{at}"),
        }
    }

    fn compare_headers(&mut self, recorded: &HashMap<String, String>, answer: &Answer, at: &str) {
        for (name, value) in recorded {
            let actual = answer
                .headers
                .get(name)
                .map(|value| value.to_str().unwrap());
            match (name.as_str(), actual) {
                ("Date" | "Content-Length", Some(_)) => {}
                ("Mesos-Stream-Id", Some(actual)) => self.bindings.bind(value, actual),
                (_, actual) => {
                    let expected = self.bindings.apply(value);
                    assert_eq!(actual, Some(expected.as_str()), "{at}: {name}");
                }
            }
        }
    }

    async fn expect_event(&mut self, recorded: &Value, at: &str) {
        let bindings = self.bindings.clone();
        self.bindings = self
            .events
            .take(&format!("{at}: {recorded:#}"), |actual| {
                let mut bindings = bindings.clone();
                bindings.same("", recorded, actual).then_some(bindings)
            })
            .await;
    }

    /// Offers may come in other groups and orders: each recorded one must come.
    async fn expect_offers(&mut self, body: &str, at: &str) {
        let recorded: Value = serde_json::from_str(body).unwrap();
        for offer in recorded["offers"]["offers"].as_array().unwrap() {
            self.spread_offers();
            let bindings = self.bindings.clone();
            let events = self.events.clone();
            let found = async {
                let mut start = Instant::now();
                loop {
                    self.spread_offers();
                    if start.elapsed() > REGROUP_AFTER {
                        self.give_offers_back().await;
                        start = Instant::now();
                    }
                    let mut found = None;
                    for left in events.left().iter().filter(|left| left["type"] == "OFFER") {
                        let mut bindings = bindings.clone();
                        if bindings.same("", offer, &left["offer"]) {
                            found = Some((bindings, left.clone()));
                        }
                    }
                    match found {
                        Some(found) => return found,
                        None => tokio::time::sleep(Duration::from_millis(20)).await,
                    }
                }
            };
            let found = tokio::time::timeout(web::DEADLINE, found).await;
            let (bindings, used) =
                found.unwrap_or_else(|_| panic!("{at}: {offer:#} in {:#?}", self.events.left()));
            self.bindings = bindings;
            self.events
                .take("the offer", |event| (*event == used).then_some(()))
                .await;
        }
    }

    /// What a task and its executor free may come in two offers when a round of the allocator falls
    /// between them; given back, they come as one.
    async fn give_offers_back(&self) {
        let mut ids = Vec::new();
        let mut framework = Value::Null;
        for left in self
            .events
            .left()
            .iter()
            .filter(|left| left["type"] == "OFFER")
        {
            self.events.remove(left);
            ids.push(left["offer"]["id"].clone());
            framework = left["offer"]["framework_id"].clone();
        }
        let call = json!({
            "type": "DECLINE", "framework_id": framework,
            "decline": {"offer_ids": ids, "filters": {"refuse_seconds": 0.0}},
        });
        if let Some(stream) = &self.stream {
            let url = format!("{}/api/v1/scheduler", self.url);
            web::post(&url, &[("Mesos-Stream-Id", stream)], &call).await;
        }
    }

    /// Takes OFFERS apart.
    fn spread_offers(&self) {
        for event in self.events.left() {
            if event["type"] == "OFFERS" {
                self.events.remove(&event);
                for offer in event["offers"]["offers"].as_array().unwrap() {
                    self.events.put(json!({"type": "OFFER", "offer": offer}));
                }
            }
        }
    }
}
