//! Kafka over librdkafka's mock cluster.
