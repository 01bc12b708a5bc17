//! Pages of a list.

/// Number of rows on a page.
pub(crate) const PAGE_SIZE: usize = 50;

/// One page of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// Number of the page, from 1.
    pub(crate) number: usize,
    /// Number of pages, at least 1.
    pub(crate) pages: usize,
    /// Number of rows of the list.
    pub(crate) rows: usize,
}

// === impl Page ===

impl Page {
    /// Returns the page with this number of a list, or the last one if there are fewer.
    pub(crate) fn new(number: Option<usize>, rows: usize) -> Self {
        let pages = rows.div_ceil(PAGE_SIZE).max(1);
        Self { number: number.unwrap_or(1).clamp(1, pages), pages, rows }
    }

    /// Returns the rows of the page.
    pub(crate) fn select<T>(self, rows: &[T]) -> &[T] {
        let first = (self.number - 1) * PAGE_SIZE;
        let last = (first + PAGE_SIZE).min(rows.len());
        rows.get(first..last).unwrap_or_default()
    }

    /// Returns the numbers of the pages before and after this one.
    pub(crate) fn neighbours(self) -> (Option<usize>, Option<usize>) {
        let before = (self.number > 1).then(|| self.number - 1);
        (before, (self.number < self.pages).then(|| self.number + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_on_one_page() {
        for length in [0, 1, 49, 50, 51, 100, 101] {
            let rows: Vec<usize> = (0..length).collect();
            let pages = Page::new(None, length).pages;
            let all: Vec<usize> = (1..=pages)
                .flat_map(|number| Page::new(Some(number), length).select(&rows).to_vec())
                .collect();
            assert_eq!(all, rows);
        }
    }

    #[test]
    fn page_number_is_kept_within_the_list() {
        assert_eq!(Page::new(Some(0), 60).number, 1);
        assert_eq!(Page::new(Some(9), 60).number, 2);
        assert_eq!(Page::new(Some(9), 0), Page { number: 1, pages: 1, rows: 0 });
        assert_eq!(Page::new(Some(1), 60).neighbours(), (None, Some(2)));
        assert_eq!(Page::new(Some(2), 60).neighbours(), (Some(1), None));
    }
}
