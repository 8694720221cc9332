//! Indexes of pods as text: `0,3-5,7`.

use crate::field::quote;

/// How many indexes the text names, all of them below `completions`; or what is wrong with it.
pub(in crate::kinds) fn count(text: &str, completions: i32) -> Result<i32, String> {
    let mut total: i32 = 0;
    let mut last: Option<i32> = None;
    if text.is_empty() {
        return Ok(0);
    }
    for part in text.split(',') {
        let (first, end) = interval(part, completions)?;
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        total = total.saturating_add(end.saturating_sub(first).saturating_add(1));
        last = Some(end);
    }
    Ok(total)
}

/// The first index that both texts name, in words. What can't be read is passed over: [`count`] reports it.
pub(in crate::kinds) fn overlap(completed: &str, failed: &str, completions: i32) -> Option<String> {
    let intervals = |text: &str| -> Vec<(i32, i32)> {
        text.split(',').filter_map(|part| interval(part, completions).ok()).collect()
    };
    let (completed, failed) = (intervals(completed), intervals(failed));
    let (mut c, mut f) = (completed.iter().peekable(), failed.iter().peekable());
    while let (Some((c_first, c_last)), Some((f_first, f_last))) = (c.peek(), f.peek()) {
        if c_first <= f_last && f_first <= c_last {
            let index = c_first.max(f_first);
            return Some(format!("failedIndexes and completedIndexes overlap at index: {index}"));
        }
        if c_first <= f_first {
            c.next();
        } else {
            f.next();
        }
    }
    None
}

/// One index, or the first and last of a row.
fn interval(text: &str, completions: i32) -> Result<(i32, i32), String> {
    let parts: Vec<&str> = text.split('-').collect();
    let index = |text: &str| -> Result<i32, String> {
        let index: i64 = text
            .parse()
            .map_err(|_| format!("cannot convert string to integer for index: {}", quote(text)))?;
        match i32::try_from(index) {
            Ok(index) if index < completions => Ok(index),
            _ => Err(format!("too large index: {}", quote(text))),
        }
    };
    match parts.as_slice() {
        [one] => index(one).map(|index| (index, index)),
        [first, last] => {
            let (first, last) = (index(first)?, index(last)?);
            if first >= last {
                return Err(format!("non-increasing order, previous: {first}, current: {last}"));
            }
            Ok((first, last))
        }
        _ => Err(format!(
            "the fragment {} violates the requirement that an index interval can have at most two parts separated by '-'",
            quote(text)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_read_as_upstream_reads_them() {
        for (text, result) in [
            ("", Ok(0)),
            ("0,2,4-7", Ok(6)),
            ("1,1", Err("non-increasing order, previous: 1, current: 1")),
            ("3-2", Err("non-increasing order, previous: 3, current: 2")),
            ("x", Err("cannot convert string to integer for index: \"x\"")),
            ("10", Err("too large index: \"10\"")),
            ("99999999999", Err("too large index: \"99999999999\"")),
            (
                "1-2-3",
                Err(
                    "the fragment \"1-2-3\" violates the requirement that an index interval can have at most two parts \
                     separated by '-'",
                ),
            ),
        ] {
            assert_eq!(count(text, 10), result.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn an_index_in_both_lists_is_found() {
        for (completed, failed, index) in [
            ("0-2,5", "3-4,6", None),
            ("0-2,5", "1", Some(1)),
            ("0-2,5-8", "3,7-9", Some(7)),
            ("x,4", "4", Some(4)),
            ("", "4", None),
        ] {
            let text = index.map(|i| format!("failedIndexes and completedIndexes overlap at index: {i}"));
            assert_eq!(overlap(completed, failed, 10), text);
        }
    }
}
