//! From a question to an answer, as DNS messages.

use std::str::FromStr;

use base::Random;
use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::index::{Found, Index, Wanted};

/// Seconds for which answers may be kept: clients should follow changes soon.
const TTL: u32 = 5;
/// What passes every path without fragments (DNS flag day 2020).
const MAX_DATAGRAM: u16 = 1232;
const MIN_DATAGRAM: u16 = 512;

/// What is to be done with a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    Answer(Message),
    /// Ask an upstream server the request as it is.
    Forward,
    /// Ask an upstream server for this name, and put the answers behind the ones given.
    Follow(Message, Name),
    /// Nothing that deserves an answer.
    Ignore,
}

/// Decides about a request. Until the services are known, `index` is absent.
pub(crate) fn decide(request: &Message, index: Option<&Index>, zone: &Name, random: &Random) -> Outcome {
    if request.metadata.message_type != MessageType::Query {
        return Outcome::Ignore;
    }
    if request.metadata.op_code != OpCode::Query {
        return Outcome::Answer(failure(request, ResponseCode::NotImp));
    }
    let [query] = request.queries.as_slice() else {
        return Outcome::Answer(failure(request, ResponseCode::FormErr));
    };
    if query.query_class() != DNSClass::IN {
        return Outcome::Answer(failure(request, ResponseCode::Refused));
    }
    let name = query.name().to_lowercase();
    let Some(index) = index else {
        // Saying that a name doesn't exist would be a lie that clients keep.
        let ours = zone.zone_of(&name);
        return if ours {
            Outcome::Answer(failure(request, ResponseCode::ServFail))
        } else {
            Outcome::Forward
        };
    };
    let labels: Vec<String> = name.iter().map(|label| String::from_utf8_lossy(label).into_owned()).collect();
    let found = index.find(&labels, wanted(query.query_type()));
    if found == Found::Foreign {
        return Outcome::Forward;
    }
    answer(request, query, found, zone, random)
}

fn wanted(kind: RecordType) -> Wanted {
    match kind {
        RecordType::A | RecordType::ANY => Wanted::Address,
        RecordType::SRV => Wanted::Service,
        RecordType::PTR => Wanted::Pointer,
        RecordType::TXT => Wanted::Text,
        _ => Wanted::Other,
    }
}

fn answer(request: &Message, query: &Query, found: Found, zone: &Name, random: &Random) -> Outcome {
    let mut response = response(request);
    response.metadata.authoritative = true;
    let owner = query.name().clone();
    let record = |name: &Name, data| Record::from_rdata(name.clone(), TTL, data);
    let within = |labels: &[String]| {
        let relative = Name::from_labels(labels.iter().map(|label| label.as_bytes()));
        relative.ok().and_then(|name| name.append_domain(zone).ok())
    };
    match found {
        Found::Addresses(mut addresses) => {
            // Clients take the first: spread them.
            if !addresses.is_empty() {
                let start = random.below(addresses.len() as u64) as usize;
                addresses.rotate_left(start);
            }
            response
                .answers
                .extend(addresses.into_iter().map(|address| record(&owner, RData::A(A(address)))));
        }
        Found::Alias(target) => {
            let Some(target) = Name::from_str(&target).ok().map(fully_qualified) else {
                return Outcome::Answer(failure(request, ResponseCode::ServFail));
            };
            response.answers.push(record(&owner, RData::CNAME(CNAME(target.clone()))));
            if query.query_type() != RecordType::CNAME {
                return Outcome::Follow(response, target);
            }
        }
        Found::Services(services) => {
            let weight = u16::try_from(100 / services.len().max(1)).unwrap_or(0).max(1);
            for (port, labels, address) in services {
                let Some(target) = within(&labels) else { continue };
                let address = record(&target, RData::A(A(address)));
                response.answers.push(record(&owner, RData::SRV(SRV::new(0, weight, port, target))));
                if !response.additionals.contains(&address) {
                    response.additionals.push(address);
                }
            }
        }
        Found::Names(names) => {
            let names = names.iter().filter_map(|labels| within(labels));
            response.answers.extend(names.map(|name| record(&owner, RData::PTR(PTR(name)))));
        }
        Found::Text(text) => response.answers.push(record(&owner, RData::TXT(TXT::new(vec![text])))),
        Found::Apex => match query.query_type() {
            RecordType::SOA => response.answers.push(soa(zone)),
            RecordType::NS => {
                response.answers.extend(dns_name(zone).map(|name| record(&owner, RData::NS(NS(name)))))
            }
            _ => response.authorities.push(soa(zone)),
        },
        Found::NoData => response.authorities.push(soa(zone)),
        Found::NoName | Found::Foreign => {
            response.metadata.response_code = ResponseCode::NXDomain;
            response.authorities.push(soa(zone));
        }
    }
    Outcome::Answer(response)
}

/// An answer without records.
pub(super) fn failure(request: &Message, code: ResponseCode) -> Message {
    let mut response = response(request);
    response.metadata.response_code = code;
    response
}

fn response(request: &Message) -> Message {
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata = Metadata::response_from_request(&request.metadata);
    response.metadata.recursion_available = true;
    response.queries.clone_from(&request.queries);
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_DATAGRAM);
        response.set_edns(edns);
    }
    response
}

/// The bytes of a response to a datagram: what doesn't fit is left out, and the client told to ask over TCP.
pub(crate) fn datagram(request: &Message, mut response: Message) -> Option<Vec<u8>> {
    let room = request
        .edns
        .as_ref()
        .map_or(MIN_DATAGRAM, |edns| edns.max_payload().clamp(MIN_DATAGRAM, MAX_DATAGRAM));
    let bytes = response.to_vec().ok()?;
    if bytes.len() <= usize::from(room) {
        return Some(bytes);
    }
    response.additionals.clear();
    let bytes = response.to_vec().ok()?;
    if bytes.len() <= usize::from(room) {
        return Some(bytes);
    }
    response.metadata.truncation = true;
    response.answers.clear();
    response.authorities.clear();
    response.to_vec().ok()
}

fn soa(zone: &Name) -> Record {
    let server = dns_name(zone).unwrap_or_else(|| zone.clone());
    let contact = zone.prepend_label("hostmaster").unwrap_or_else(|_| zone.clone());
    let data = SOA::new(server, contact, 1, 7200, 1800, 86400, TTL);
    Record::from_rdata(zone.clone(), TTL, RData::SOA(data))
}

fn dns_name(zone: &Name) -> Option<Name> {
    zone.prepend_label("dns").and_then(|name| name.prepend_label("ns")).ok()
}

fn fully_qualified(mut name: Name) -> Name {
    name.set_fqdn(true);
    name
}
