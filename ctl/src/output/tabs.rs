//! Elastic tab stops: the cells before a tab are as wide as the widest of the lines around them that have such a
//! cell. What kubectl's descriptions and small tables are aligned with.

/// Aligns the text's tabs, with two spaces between columns.
pub(crate) fn align(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let mut out = String::with_capacity(text.len() * 2);
    block(&lines, &mut Vec::new(), &mut out);
    out
}

fn block(lines: &[Vec<&str>], widths: &mut Vec<usize>, out: &mut String) {
    let column = widths.len();
    let has_cell = |line: &Vec<&str>| column + 1 < line.len();
    let mut start = 0;
    while start < lines.len() {
        let end = start + lines[start..].iter().position(has_cell).unwrap_or(lines.len() - start);
        write(&lines[start..end], widths, out);
        start = end;
        let end =
            start + lines[start..].iter().position(|line| !has_cell(line)).unwrap_or(lines.len() - start);
        if end > start {
            let width = lines[start..end].iter().map(|line| line[column].chars().count() + 2).max();
            widths.push(width.unwrap_or_default());
            block(&lines[start..end], widths, out);
            widths.pop();
            start = end;
        }
    }
}

fn write(lines: &[Vec<&str>], widths: &[usize], out: &mut String) {
    for line in lines {
        for (i, cell) in line.iter().enumerate() {
            out.push_str(cell);
            if i + 1 < line.len() {
                let width = widths.get(i).copied().unwrap_or_default();
                out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
            }
        }
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_block() {
        let text = "Name:\tx\nNamespace:\tdefault\nlone line\nA:\tb\tc\nLong:\td\n";
        let aligned = "Name:       x\nNamespace:  default\nlone line\nA:     b  c\nLong:  d\n";
        assert_eq!(align(text), aligned);
    }
}
