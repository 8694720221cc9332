//! How many seats a request needs: one, or more for a list of many objects.

use crate::RequestInfo;
use crate::server::Server;

/// So many objects make a seat; upstream's figure.
const OBJECTS: usize = 100;
/// No list needs more.
const MOST: u32 = 10;

/// The seats of a request whose level lets one request have `widest`.
pub(super) fn of(server: &Server, info: &RequestInfo, widest: u32) -> u32 {
    if !shows_objects(info) {
        return 1;
    }
    let table = server.registry.table();
    let row = table.resource(&info.group, &info.version, &info.resource);
    let stored = row.and_then(|row| server.registry.cache(row)).map_or(0, |cache| cache.len());
    let limit = info.query.get("limit").and_then(|limit| limit.parse().ok()).filter(|limit| *limit > 0);
    seats(stored.min(limit.unwrap_or(usize::MAX)), widest)
}

/// True for lists, and for watches that begin with the present. One object by its name is as a get.
fn shows_objects(info: &RequestInfo) -> bool {
    match info.verb {
        "list" => info.name.is_empty(),
        "watch" => {
            let from_start = matches!(info.query.get("resourceVersion"), None | Some("0"));
            info.name.is_empty() && (from_start || info.query.flag("sendInitialEvents"))
        }
        _ => false,
    }
}

fn seats(objects: usize, widest: u32) -> u32 {
    let wanted = u32::try_from(objects.div_ceil(OBJECTS)).unwrap_or(u32::MAX);
    wanted.clamp(1, MOST.min(widest.max(1)))
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn a_list_needs_a_seat_for_every_hundred_objects() {
        for (objects, widest, expect) in [(0, 9, 1), (100, 9, 1), (101, 9, 2), (5000, 9, 9), (5000, 99, 10)] {
            assert_eq!(seats(objects, widest), expect, "{objects} {widest}");
        }
    }

    #[test]
    fn requests_that_show_no_objects_need_one() {
        for (target, expect) in [
            ("/api/v1/pods", true),
            ("/api/v1/pods?fieldSelector=metadata.name%3Dx", false),
            ("/api/v1/namespaces/a/pods/x", false),
            ("/api/v1/pods?watch=1", true),
            ("/api/v1/pods?watch=1&resourceVersion=5", false),
            ("/api/v1/pods?watch=1&resourceVersion=5&sendInitialEvents=true", true),
        ] {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            assert_eq!(shows_objects(&RequestInfo::new(&Method::GET, path, query)), expect, "{target}");
        }
    }
}
