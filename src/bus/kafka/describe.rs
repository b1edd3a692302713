//! Topics as Kafka describes them, with their ids: a topic that was removed and made again has another one, and nothing
//! else tells. The crate has no safe call for it, so this file holds the few foreign calls that ask.

use std::ffi::{CStr, CString};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings::{self as sys, rd_kafka_resp_err_t as Code};
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;

/// A topic that is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Described {
    /// Kafka's id of this topic, new when it is made again.
    pub id: Arc<str>,
    /// How many partitions it has.
    pub partitions: u32,
}

/// Asks for these topics; by name, `None` for one that is not there. Blocks until Kafka answers, for `timeout` at most.
///
/// # Errors
/// What kept Kafka from answering.
pub fn describe<C: ClientContext>(
    client: &Client<C>,
    topics: &[Arc<str>],
    timeout: Duration,
) -> Result<Vec<Option<Described>>, RDKafkaErrorCode> {
    if topics.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<CString> = topics.iter().map(|topic| CString::new(&**topic).unwrap_or_default()).collect();
    let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client lives through this call; `pointers` are `names`' texts, which end in NUL and outlive the
    // collection; librdkafka copies them. What is made here is destroyed here, and nothing of it is used afterwards.
    unsafe {
        let rk = client.native_ptr();
        let queue = sys::rd_kafka_queue_new(rk);
        let collection = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let options = sys::rd_kafka_AdminOptions_new(rk, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        // Refused only where the number is out of range; then the client's own timeout holds.
        sys::rd_kafka_AdminOptions_set_request_timeout(options, millis, ptr::null_mut(), 0);
        sys::rd_kafka_DescribeTopics(rk, collection, options, queue);
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_TopicCollection_destroy(collection);
        let event = sys::rd_kafka_queue_poll(queue, millis.saturating_add(GRACE_MS));
        let answer = if event.is_null() { Err(RDKafkaErrorCode::OperationTimedOut) } else { read(event, topics) };
        if !event.is_null() {
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_queue_destroy(queue);
        answer
    }
}

/// # Safety
/// The event is an answer to `rd_kafka_DescribeTopics`, and lives.
unsafe fn read(
    event: *mut sys::rd_kafka_event_t,
    topics: &[Arc<str>],
) -> Result<Vec<Option<Described>>, RDKafkaErrorCode> {
    let mut found = vec![None; topics.len()];
    // SAFETY: descriptions and texts belong to the event, which the caller keeps; `descriptions` has `count` entries.
    // Every text ends in NUL.
    unsafe {
        let failed = sys::rd_kafka_event_error(event);
        if failed != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(failed.into());
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        let mut count = 0;
        let descriptions = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        for at in 0..count {
            let description = *descriptions.add(at);
            let name = CStr::from_ptr(sys::rd_kafka_TopicDescription_name(description)).to_string_lossy();
            match sys::rd_kafka_error_code(sys::rd_kafka_TopicDescription_error(description)) {
                Code::RD_KAFKA_RESP_ERR_NO_ERROR => {}
                Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART | Code::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE => {
                    continue;
                }
                code => return Err(code.into()),
            }
            let id = sys::rd_kafka_Uuid_base64str(sys::rd_kafka_TopicDescription_topic_id(description));
            let id = CStr::from_ptr(id).to_string_lossy();
            let mut partitions = 0;
            sys::rd_kafka_TopicDescription_partitions(description, &mut partitions);
            if let Some(at) = topics.iter().position(|topic| **topic == *name) {
                let partitions = u32::try_from(partitions).unwrap_or(u32::MAX);
                found[at] = Some(Described { id: id.as_ref().into(), partitions });
            }
        }
    }
    Ok(found)
}

/// How much longer than the request's own timeout its answer is awaited.
const GRACE_MS: i32 = 500;
