//! A Kafka broker of a test's own.

use std::fs::DirEntry;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use ringgate::bus::kafka::KafkaConfig;
use ringgate::shard::driver::syscall::describe_topics;
use rustix::process::{Pid, Signal, kill_process};

/// Ended, and its data removed, when it is dropped.
pub struct Broker {
    folder: PathBuf,
    address: String,
    admin: AdminClient<DefaultClientContext>,
}

impl Broker {
    /// One without topics.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with more listeners, by TLS, by SASL, by both; see [`Broker::listener`].
    pub fn secure() -> Self {
        Self::start_with(&["--secure"])
    }

    /// The second one of this one's cluster.
    pub fn beside(&self) -> Self {
        Self::start_with(&["--beside", self.folder.to_str().unwrap()])
    }

    fn start_with(options: &[&str]) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("ringgate-kafka-{}-{n}", std::process::id()));
        let address = script("start", &folder, options);
        let admin = ClientConfig::new().set("bootstrap.servers", &address).create().unwrap();
        Self { folder, address, admin }
    }

    /// A file of a secure one.
    pub fn file(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    /// `HOST:PORT` of the listener `tls`, `sasl-tls` or `sasl`.
    pub fn listener(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap().trim().to_owned()
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The settings of a gateway that needs these topics.
    pub fn config(&self, topics: &[&str]) -> KafkaConfig {
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        KafkaConfig { topics, ..KafkaConfig::new(&self.address, "test", describe_topics) }
    }

    /// Makes a topic; it is there afterwards.
    pub fn create(&self, topic: &str, partitions: i32) {
        self.create_with(topic, partitions, &[]);
    }

    /// The same with settings of the topic's own.
    pub fn create_with(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        let spec = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let spec = settings.iter().fold(spec, |spec, (name, value)| spec.set(name, value));
        let made = wait(self.admin.create_topics([&spec], &AdminOptions::new())).unwrap();
        made.into_iter().for_each(|outcome| _ = outcome.unwrap());
    }

    /// Makes a topic with a partition on each of these brokers, 1 and 2.
    pub fn create_on(&self, topic: &str, brokers: &[i32]) {
        let places: Vec<&[i32]> = brokers.iter().map(std::slice::from_ref).collect();
        let count = i32::try_from(brokers.len()).unwrap();
        let spec = NewTopic::new(topic, count, TopicReplication::Variable(&places));
        let made = wait(self.admin.create_topics([&spec], &AdminOptions::new())).unwrap();
        made.into_iter().for_each(|outcome| _ = outcome.unwrap());
    }

    /// Whether the topic's partition has a leader.
    pub fn has_leader(&self, topic: &str, partition: usize) -> bool {
        let found = self.admin.inner().fetch_metadata(Some(topic), Duration::from_secs(5));
        found.is_ok_and(|found| found.topics()[0].partitions()[partition].leader() >= 0)
    }

    /// Gives a topic partitions, so many in all.
    pub fn add_partitions(&self, topic: &str, count: usize) {
        let added = wait(self.admin.create_partitions([&NewPartitions::new(topic, count)], &AdminOptions::new()));
        added.unwrap().into_iter().for_each(|outcome| _ = outcome.unwrap());
    }

    /// Removes a topic.
    pub fn delete(&self, topic: &str) {
        let removed = wait(self.admin.delete_topics(&[topic], &AdminOptions::new())).unwrap();
        removed.into_iter().for_each(|outcome| _ = outcome.unwrap());
    }

    /// Removes a topic's records below the offset.
    pub fn delete_records(&self, topic: &str, before: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Offset(before)).unwrap();
        wait(self.admin.delete_records(&list, &AdminOptions::new())).unwrap();
    }

    /// It does nothing from now on: the signal is with each of its threads, which may be a moment later.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        let asked = Instant::now();
        while !self.stands_still() {
            assert!(asked.elapsed() < Duration::from_secs(20), "the broker does not stop");
            std::thread::yield_now();
        }
    }

    /// It goes on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it as an operator does.
    pub fn stop(&self) {
        script("stop", &self.folder, &[]);
    }

    /// Ends it at once; what it had accepted stays.
    pub fn kill(&self) {
        script("kill", &self.folder, &[]);
    }

    /// Starts it again, with its data, where it was.
    pub fn again(&self) {
        assert_eq!(script("start", &self.folder, &[]), self.address);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.process().parse().unwrap()).unwrap(), signal).unwrap();
    }

    fn process(&self) -> String {
        std::fs::read_to_string(self.folder.join("pid")).unwrap().trim().to_owned()
    }

    /// Whether every thread is stopped (proc_pid_stat(5): the state is behind the name in brackets).
    fn stands_still(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.process())).unwrap();
        let stat = |thread: std::io::Result<DirEntry>| std::fs::read_to_string(thread.ok()?.path().join("stat")).ok();
        // One that has no state has ended.
        threads.filter_map(stat).all(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn script(action: &str, folder: &PathBuf, options: &[&str]) -> String {
    let output = Command::new("tests/services/kafka.sh").arg(action).arg(folder).args(options).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn wait<T>(request: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(request)
}
