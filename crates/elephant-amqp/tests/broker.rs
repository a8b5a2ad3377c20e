//! Tests with a real RabbitMQ, whose queues are read as by the Java client (docs/protocol.md,
//! "How the client uses RabbitMQ").

use std::time::{Duration, Instant};

use elephant_amqp::{BrokerAddress, BrokerState, BrokerStatus, EXCHANGE, Publisher, RunningPublisher};
use elephant_jobs::{JobSpec, Jobs, Outcome, Owner, SqliteStore};
use elephant_testkit::Broker;
use elephant_types::TaskEvent;
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Consumer,
    options::{BasicConsumeOptions, BasicPublishOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};

/// Longest time that a step may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

struct Server {
    jobs: Jobs,
    status: BrokerStatus,
    publisher: RunningPublisher,
    _folder: tempfile::TempDir,
}

impl Server {
    fn start(url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let jobs =
            Jobs::open(SqliteStore::open(&folder.path().join("state.db")).unwrap(), Owner::new("server")).unwrap();
        let publisher = Publisher::new(BrokerAddress::parse(url).unwrap());
        Self { status: publisher.status(), publisher: publisher.start(&jobs), jobs, _folder: folder }
    }

    async fn until(&self, condition: impl Fn(&BrokerState) -> bool) {
        let begun = Instant::now();
        while !condition(&self.status.now()) {
            assert!(begun.elapsed() < PATIENCE, "{}", self.status.now());
            tokio::task::yield_now().await;
        }
    }

    fn model_updated(&self) {
        let job = self.jobs.begin(&JobSpec::new("train", "detection.pth")).unwrap();
        job.context().tell(TaskEvent::model_updated());
        job.finish(Outcome::Completed);
    }
}

async fn connect(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

/// Declares and consumes as the client does: not durable, no arguments, automatic acknowledgement.
async fn consume(channel: &Channel, queue: &str) -> Consumer {
    channel.queue_declare(queue.into(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await.unwrap()
}

async fn next(consumer: &mut Consumer) -> String {
    let delivery = tokio::time::timeout(PATIENCE, consumer.next()).await.expect("a message arrives in time");
    String::from_utf8(delivery.unwrap().unwrap().data).unwrap()
}

async fn waiting(channel: &Channel, queue: &str) -> u32 {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), options, FieldTable::default()).await.unwrap().message_count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_reads_what_the_original_sends() {
    let Some(url) = Broker::new_vhost() else { return };
    let (_connection, channel) = connect(&url).await;
    let mut update = consume(&channel, "update").await;
    let mut dataset = consume(&channel, "dataset").await;
    let server = Server::start(&url);
    let job = server.jobs.begin(&JobSpec::new("generate", "fly")).unwrap();
    for done in 1..=5 {
        job.context().report(done, 5);
        assert_eq!(next(&mut dataset).await, format!(r#"{{"t_max":5,"t_current":{done}}}"#));
    }
    server.model_updated();
    assert_eq!(next(&mut update).await, "Model updated");
    // A client that connects later declares the same queues with the same properties.
    let (_connection, later) = connect(&url).await;
    for queue in ["update", "dataset", "log", "prediction"] {
        consume(&later, queue).await;
    }
    server.publisher.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_messages_do_not_accumulate() {
    let Some(url) = Broker::new_vhost() else { return };
    let (_connection, channel) = connect(&url).await;
    let mut update = consume(&channel, "update").await;
    let server = Server::start(&url);
    for _ in 0..1000 {
        server.jobs.begin(&JobSpec::new("predict", "fly")).unwrap().finish(Outcome::Completed);
    }
    server.model_updated();
    assert_eq!(next(&mut update).await, "Model updated", "all messages before it were processed");
    assert_eq!(waiting(&channel, "prediction").await, 100);
    server.publisher.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_that_binds_a_queue_gets_every_message() {
    let Some(url) = Broker::new_vhost() else { return };
    let server = Server::start(&url);
    server.until(|state| *state == BrokerState::Connected).await;
    let mut consumers = Vec::new();
    for _ in 0..2 {
        let (connection, channel) = connect(&url).await;
        let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare("".into(), options, FieldTable::default()).await.unwrap();
        let (name, bind) = (queue.name().clone(), QueueBindOptions::default());
        channel.queue_bind(name.clone(), EXCHANGE.into(), "#".into(), bind, FieldTable::default()).await.unwrap();
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consumer = channel.basic_consume(name, "".into(), options, FieldTable::default()).await.unwrap();
        consumers.push((connection, channel, consumer));
    }
    (0..3).for_each(|_| server.model_updated());
    for (_, _, consumer) in &mut consumers {
        for _ in 0..3 {
            assert_eq!(next(consumer).await, "Model updated");
        }
    }
    server.publisher.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_with_other_properties_are_used_as_they_are() {
    let Some(url) = Broker::new_vhost() else { return };
    let (_connection, channel) = connect(&url).await;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("update".into(), durable, FieldTable::default()).await.unwrap();
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut update = channel.basic_consume("update".into(), "".into(), options, FieldTable::default()).await.unwrap();
    // Already above the limit, as the original may leave it.
    channel.queue_declare("prediction".into(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
    for _ in 0..500 {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        channel
            .basic_publish("".into(), "prediction".into(), options, b"Prediction updated", properties)
            .await
            .unwrap();
    }
    let server = Server::start(&url);
    server.jobs.begin(&JobSpec::new("predict", "fly")).unwrap().finish(Outcome::Completed);
    server.model_updated();
    assert_eq!(next(&mut update).await, "Model updated");
    assert_eq!(waiting(&channel, "prediction").await, 500, "it is not made worse");
    server.publisher.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exclusive_queue_does_not_affect_the_others() {
    let Some(url) = Broker::new_vhost() else { return };
    let (_connection, channel) = connect(&url).await;
    // The broker refuses such a queue to other connections, with RESOURCE_LOCKED.
    let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("prediction".into(), exclusive, FieldTable::default()).await.unwrap();
    let mut update = consume(&channel, "update").await;
    let server = Server::start(&url);
    server.until(|state| *state == BrokerState::Connected).await;
    for _ in 0..20 {
        server.jobs.begin(&JobSpec::new("predict", "fly")).unwrap().finish(Outcome::Completed);
        server.model_updated();
        assert_eq!(next(&mut update).await, "Model updated");
        assert_eq!(server.status.now(), BrokerState::Connected);
    }
    server.publisher.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_crashes_or_hangs_delays_nothing() {
    let Some(broker) = Broker::start() else { return };
    let server = Server::start(&broker.url());
    server.until(|state| *state == BrokerState::Connected).await;
    broker.kill();
    server.until(|state| matches!(state, BrokerState::Down(_))).await;
    let begun = Instant::now();
    (0..20).for_each(|_| server.model_updated());
    assert!(begun.elapsed() < Duration::from_secs(5), "jobs do not wait for a dead broker: {:?}", begun.elapsed());
    broker.restart();
    let (_connection, channel) = connect(&broker.url()).await;
    let mut update = consume(&channel, "update").await;
    for _ in 0..20 {
        assert_eq!(next(&mut update).await, "Model updated", "messages from the outage arrive");
    }
    broker.pause();
    let begun = Instant::now();
    (0..5).for_each(|_| server.model_updated());
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "jobs do not wait for a broker that hangs: {:?}",
        begun.elapsed()
    );
    server.until(|state| matches!(state, BrokerState::Down(_))).await;
    broker.resume();
    server.until(|state| *state == BrokerState::Connected).await;
    let begun = Instant::now();
    broker.kill();
    server.publisher.close().await;
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "the end of the program does not wait either: {:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_reported_without_showing_it() {
    let Some(url) = Broker::new_vhost() else { return };
    let server = Server::start(&url.replace("user:user", "user:s3cret"));
    server.until(|state| matches!(state, BrokerState::Down(_))).await;
    let message = server.status.now().to_string();
    assert!(message.contains("ACCESS") && !message.contains("s3cret"), "{message}");
    server.publisher.close().await;
}
