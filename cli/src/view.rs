//! The rows of the live view, as a function of what there is to show and of the size of the terminal.
//!
//! The view takes at most half of the rows, so that the log above it stays readable, and so that a terminal that is made
//! narrower, which wraps what is on it, does not push rows of the view out of reach of the next drawing. What does not fit
//! is cut with an ellipsis or counted in the last row.

use std::cmp::Ordering;
use std::iter::Peekable;
use std::str::Chars;
use std::time::Duration;

use crate::columns::{self, cut, cut_middle, pad};

/// What there is to show.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Address of requests, as `http://...`.
    pub address: String,
    /// Address of the admin port, as `http://...`.
    pub admin: String,
    /// Time since the start.
    pub up: Duration,
    /// Services, in any order.
    pub services: Vec<ServiceView>,
}

/// A service, its pods and requests, and the reasons for its number of pods.
#[derive(Clone, Debug, Default)]
pub struct ServiceView {
    /// Namespace and name.
    pub name: String,
    /// Pods that are ready.
    pub ready: u32,
    /// Pods on their way up.
    pub starting: u32,
    /// The number of pods there should be; empty while nothing is decided.
    pub wanted: String,
    /// Load, and target per pod.
    pub load: String,
    /// The window that decides.
    pub mode: &'static str,
    /// Requests that wait.
    pub queued: u64,
    /// Requests at pods.
    pub active: u64,
    /// Requests so far.
    pub requests: u64,
    /// Whether its pods do not come up.
    pub is_failing: bool,
    /// What one has to know of it, the most important first.
    pub reasons: Vec<String>,
}

impl View {
    /// The rows for a terminal of this size; none is wider than it.
    pub fn rows(&self, width: usize, height: usize) -> Vec<String> {
        // A terminal that writes its last column may wrap.
        let width = width.max(MIN_WIDTH) - 1;
        let height = ((height.saturating_sub(1)) / 2).max(height.saturating_sub(3).min(MIN_ROWS)).max(2);
        let mut services: Vec<&ServiceView> = self.services.iter().collect();
        services.sort_by(|one, other| natural(&one.name, &other.name));

        let table = Layout::for_services(&services, width);
        let mut rows = vec![self.title(width), table.header(width)];
        let (mut room, mut hidden) = (height.saturating_sub(rows.len()), 0);
        if services.len() > room {
            // The last row counts the others.
            room = room.saturating_sub(1);
            hidden = services.len() - room;
        }
        let shown = &services[..services.len() - hidden];
        let mut reasons = Reasons::new(room - shown.len());
        for (at, service) in shown.iter().enumerate() {
            rows.push(table.row(service, width));
            if table.reason_width.is_none() {
                rows.extend(reasons.of(service, shown, at, width));
            }
        }
        if hidden > 0 {
            rows.push(cut(&more(&services[services.len() - hidden..]), width));
        }
        if rows.len() < height {
            // Apart from the log above.
            rows.insert(0, String::new());
        }
        rows
    }

    /// Addresses and how to stop it; the more important, the narrower it stays.
    fn title(&self, width: usize) -> String {
        let up = humantime::format_duration(Duration::from_secs(self.up.as_secs()));
        let (admin, up) = (format!("admin {}", self.admin), format!("up {up}"));
        let stop = "Ctrl-C stops";
        let choices: [&[&str]; 5] = [
            &["pilotlight", &self.address, &admin, &up, stop],
            &[&self.address, &admin, &up, stop],
            &[&self.address, &up, stop],
            &[&self.address, stop],
            &[stop],
        ];
        let lines = choices.map(|parts| parts.join(TITLE_GAP));
        let [.., last] = &lines;
        lines.iter().find(|line| columns::width(line) <= width).cloned().unwrap_or_else(|| cut(last, width))
    }
}

/// The columns that fit.
struct Layout {
    name_width: usize,
    columns: Vec<&'static Column>,
    /// The width of the reason beside the numbers; `None`: reasons have rows of their own.
    reason_width: Option<usize>,
}

struct Column {
    heading: &'static str,
    width: usize,
    is_left: bool,
    /// Columns of lower importance go first where there is no room.
    importance: u8,
    value: fn(&ServiceView) -> String,
}

impl Layout {
    fn for_services(services: &[&ServiceView], width: usize) -> Layout {
        let longest = services.iter().map(|service| columns::width(&service.name)).max().unwrap_or_default();
        let wanted = longest.clamp(MIN_NAME, MAX_NAME);
        let mut columns: Vec<&'static Column> = COLUMNS.iter().collect();
        let taken = |columns: &[&Column]| columns.iter().map(|column| column.width + 1).sum::<usize>();
        // A long name may lose a third before a column goes.
        let needed = wanted.min((wanted * 2 / 3).max(SHORT_NAME));
        while columns.len() > 1 && taken(&columns) + needed > width {
            let least = columns.iter().map(|column| column.importance).min();
            columns.retain(|column| Some(column.importance) != least);
        }
        let room = width.saturating_sub(taken(&columns));
        let name_width = wanted.min(room);
        let rest = room - name_width;
        let reason_width = (rest > REASON_BESIDE).then(|| rest - GAP.len());
        Layout { name_width, columns, reason_width }
    }

    fn header(&self, width: usize) -> String {
        let line = self.line("SERVICE", |column| column.heading.to_owned(), "WHY");
        cut(&line, width)
    }

    fn row(&self, service: &ServiceView, width: usize) -> String {
        let reason = service.reasons.first().map_or("", String::as_str);
        cut(&self.line(&service.name, |column| (column.value)(service), reason), width)
    }

    fn line(&self, name: &str, cell: impl Fn(&Column) -> String, reason: &str) -> String {
        let mut line = pad(&cut_middle(name, self.name_width), self.name_width, true);
        for column in &self.columns {
            line.push(' ');
            line.push_str(&pad(&cut(&cell(column), column.width), column.width, column.is_left));
        }
        if self.reason_width.is_some() {
            line.push_str(GAP);
            line.push_str(&plain(reason));
        }
        line.trim_end().to_owned()
    }
}

/// Rows for reasons: every service has its first reason before any has its second.
struct Reasons {
    room: usize,
}

impl Reasons {
    fn new(room: usize) -> Self {
        Reasons { room }
    }

    /// The rows under one of the services shown.
    fn of(&mut self, service: &ServiceView, shown: &[&ServiceView], at: usize, width: usize) -> Vec<String> {
        let others = &shown[at + 1..];
        // A failing service says why before a healthy one does.
        let needed = |other: &&&ServiceView| other.is_failing && !service.is_failing;
        let kept_for = if service.is_failing { 0 } else { others.iter().filter(needed).count() };
        let fair = self.room.saturating_sub(kept_for) / (others.len() + 1);
        let fair = if service.is_failing { fair.max(self.room.min(1)) } else { fair };
        let mut rows = Vec::new();
        for (nth, reason) in service.reasons.iter().enumerate() {
            let left = fair - rows.len();
            if left == 0 {
                break;
            }
            // The others keep a row each, but the first may take as many as it needs.
            let later = service.reasons.len() - nth - 1;
            let lines = if left > later { left - later } else { 1 };
            rows.extend(wrap(reason, width, lines));
        }
        self.room -= rows.len();
        rows
    }
}

/// `+6 more (2 with pods, 1 failing)`.
fn more(hidden: &[&ServiceView]) -> String {
    let with_pods = hidden.iter().filter(|service| service.ready + service.starting > 0).count();
    let failing = hidden.iter().filter(|service| service.is_failing).count();
    let told = [(with_pods, "with pods"), (failing, "failing")].into_iter().filter(|(count, _)| *count > 0);
    let told: Vec<String> = told.map(|(count, what)| format!("{count} {what}")).collect();
    let told = if told.is_empty() { String::new() } else { format!(" ({})", told.join(", ")) };
    format!("+{} more{told}: pilotlight explain", hidden.len())
}

/// At most `rows` rows, indented, broken between words; the last one is cut if there is more.
fn wrap(text: &str, width: usize, rows: usize) -> Vec<String> {
    let text = plain(text);
    let mut wrapped: Vec<String> = Vec::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let indent = if wrapped.is_empty() { INDENT } else { INDENT_MORE };
        let room = width.saturating_sub(indent.len()).max(1);
        let whole = columns::width(rest) <= room;
        if whole || wrapped.len() + 1 == rows {
            wrapped.push(format!("{indent}{}", cut(rest, room)));
            return wrapped;
        }
        let end = columns::front(rest, room + 1).rfind(' ').filter(|&end| end > 0);
        let end = end.unwrap_or_else(|| {
            columns::front(rest, room).len().max(rest.chars().next().map_or(0, char::len_utf8))
        });
        wrapped.push(format!("{indent}{}", &rest[..end]));
        rest = rest[end..].trim_start();
    }
    wrapped
}

/// The text without what would move the cursor or change colours: a reason may quote what an app wrote.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            '\x1b' => skip_sequence(&mut rest),
            '\t' => plain.push(' '),
            other if other.is_control() => {}
            other => plain.push(other),
        }
    }
    plain
}

/// Skips the rest of an escape sequence (ECMA-48: CSI and its final byte).
fn skip_sequence(rest: &mut Peekable<Chars<'_>>) {
    if rest.next_if_eq(&'[').is_some() {
        rest.by_ref().find(|c| ('@'..='~').contains(c));
    }
}

/// The order that people expect: numbers in names count by their value.
pub(crate) fn natural(one: &str, other: &str) -> Ordering {
    let (mut left, mut right) = (one.chars().peekable(), other.chars().peekable());
    loop {
        let order = match (left.peek().copied(), right.peek().copied()) {
            (None, None) => return one.cmp(other),
            (a, b) if a.is_none() || b.is_none() => return a.is_some().cmp(&b.is_some()),
            (Some(a), Some(b)) if a.is_ascii_digit() && b.is_ascii_digit() => {
                number(&mut left).cmp(&number(&mut right))
            }
            _ => left.next().cmp(&right.next()),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// The digits that come next, as length and text without leading zeros: compared, they are in order of their value.
fn number(text: &mut Peekable<Chars<'_>>) -> (usize, String) {
    let mut digits = String::new();
    while let Some(digit) = text.next_if(char::is_ascii_digit) {
        digits.push(digit);
    }
    let digits = digits.trim_start_matches('0').to_owned();
    (digits.len(), digits)
}

const COLUMNS: [Column; 8] = [
    Column { heading: "READY", width: 5, is_left: false, importance: 9, value: |it| it.ready.to_string() },
    Column {
        heading: "STARTING",
        width: 8,
        is_left: false,
        importance: 5,
        value: |it| it.starting.to_string(),
    },
    Column { heading: "WANTED", width: 6, is_left: false, importance: 8, value: |it| it.wanted.clone() },
    Column { heading: "LOAD / TARGET", width: 13, is_left: true, importance: 3, value: |it| it.load.clone() },
    Column { heading: "MODE", width: 6, is_left: true, importance: 1, value: |it| it.mode.to_owned() },
    Column { heading: "QUEUE", width: 5, is_left: false, importance: 6, value: |it| it.queued.to_string() },
    Column { heading: "ACTIVE", width: 6, is_left: false, importance: 7, value: |it| it.active.to_string() },
    Column {
        heading: "REQUESTS",
        width: 8,
        is_left: false,
        importance: 4,
        value: |it| it.requests.to_string(),
    },
];
/// The narrowest terminal that is drawn for.
const MIN_WIDTH: usize = 20;
/// Rows that are taken even of a low terminal, if it has them.
const MIN_ROWS: usize = 6;
const MIN_NAME: usize = 10;
/// A name up to this length is cut only where nothing else is left to go.
const SHORT_NAME: usize = 16;
const MAX_NAME: usize = 48;
/// Columns that must be left beside the numbers for reasons to stand there.
const REASON_BESIDE: usize = 60;
const TITLE_GAP: &str = "   ";
const GAP: &str = "  ";
const INDENT: &str = "  ";
const INDENT_MORE: &str = "    ";

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str) -> ServiceView {
        ServiceView {
            name: name.to_owned(),
            ready: 1,
            wanted: "1".to_owned(),
            load: "0.0 / 7".to_owned(),
            mode: "stable",
            reasons: vec![
                "now: average 0.0 in flight over 6 s; 7 per pod (10 x 70 %): 0 pods; the last pod stays for up to 30 s \
                 (scale-to-zero-grace-period)"
                    .to_owned(),
                "12.3 s ago: 0 -> 1: woken by a request".to_owned(),
            ],
            ..ServiceView::default()
        }
    }

    fn view(names: &[&str]) -> View {
        View {
            address: "http://127.0.0.1:23001".to_owned(),
            admin: "http://127.0.0.1:23002".to_owned(),
            up: Duration::from_millis(22_700),
            services: names.iter().map(|name| service(name)).collect(),
        }
    }

    fn twelve() -> View {
        let names: Vec<String> = (0..12).rev().map(|number| format!("production/service-{number}")).collect();
        view(&names.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The rows without the one that keeps the log apart.
    fn shown(view: &View, width: usize, height: usize) -> Vec<String> {
        view.rows(width, height).into_iter().filter(|row| !row.is_empty()).collect()
    }

    #[test]
    fn one_service_on_eighty_columns_says_how_to_stop_and_the_whole_reason() {
        let rows = shown(&view(&["default/sample"]), 80, 24);
        assert_eq!(
            rows,
            [
                "http://127.0.0.1:23001   admin http://127.0.0.1:23002   up 22s   Ctrl-C stops",
                "SERVICE        READY STARTING WANTED LOAD / TARGET MODE   QUEUE ACTIVE REQUESTS",
                "default/sample     1        0      1 0.0 / 7       stable     0      0        0",
                "  now: average 0.0 in flight over 6 s; 7 per pod (10 x 70 %): 0 pods; the last",
                "    pod stays for up to 30 s (scale-to-zero-grace-period)",
                "  12.3 s ago: 0 -> 1: woken by a request",
            ]
        );
    }

    #[test]
    fn no_row_is_wider_and_no_view_higher_than_its_part_of_the_terminal() {
        let odd = ["a", "production/payments-service-number-1", "production/payments-service-number-22"];
        for (width, height) in [(80, 24), (40, 10), (20, 5), (200, 60), (120, 30), (1, 1), (80, 3)] {
            for view in [view(&[]), view(&odd), twelve()] {
                let rows = shown(&view, width, height);
                let limit = ((height - 1) / 2).max(MIN_ROWS);
                assert!(rows.len() <= limit, "{width}x{height}: {rows:#?}");
                let width = width.max(MIN_WIDTH);
                assert!(rows.iter().all(|row| columns::width(row) < width), "{width}x{height}: {rows:#?}");
                assert!(rows[0].contains("Ctrl-C stops"), "{rows:#?}");
            }
        }
    }

    #[test]
    fn on_a_terminal_of_half_the_width_all_rows_can_still_be_erased() {
        for (width, height) in [(80, 24), (120, 40), (200, 60), (40, 16)] {
            let rows = twelve().rows(width, height);
            let wrapped: usize = rows.iter().map(|row| columns::width(row).div_ceil(width / 2).max(1)).sum();
            assert!(wrapped < height, "{width}x{height}: {rows:#?}");
        }
    }

    #[test]
    fn services_are_in_natural_order_and_those_left_out_are_counted() {
        let mut view = twelve();
        view.services[0].is_failing = true;
        let rows = shown(&view, 80, 24);
        let names: Vec<&str> = rows[2..10].iter().map(|row| row.split(' ').next().unwrap()).collect();
        assert_eq!(
            (names[0], names[2], names[7]),
            ("production/service-0", "production/service-2", "production/service-7")
        );
        assert_eq!(rows[10], "+4 more (4 with pods, 1 failing): pilotlight explain");
        assert_eq!(rows.len(), 11);
        let high = view.rows(80, 60);
        assert!(high.iter().any(|row| row.starts_with("production/service-11 ")), "{high:#?}");
    }

    #[test]
    fn long_names_are_cut_inside_and_shift_nothing() {
        let rows = shown(&view(&["production/payments-service-number-1", "b"]), 60, 24);
        assert_eq!(rows[1], "SERVICE                  READY STARTING WANTED QUEUE ACTIVE");
        let of_name = rows.iter().find(|row| row.starts_with("production")).unwrap();
        assert_eq!(of_name, "production/p…ce-number-1     1        0      1     0      0");
    }

    #[test]
    fn wide_characters_fit_and_shift_nothing() {
        let mut view = view(&["本番/お支払いサービス", "b"]);
        view.services[0].reasons = vec!["起動に失敗しました。".repeat(20)];
        for width in MIN_WIDTH..120 {
            let rows = view.rows(width, 24);
            assert!(rows.iter().all(|row| columns::width(row) < width), "{width}: {rows:#?}");
        }
        let rows = shown(&view, 60, 24);
        let ends = |row: &str| columns::width(row.trim_end());
        assert_eq!(ends(&rows[1]), ends(rows.iter().find(|row| row.starts_with('本')).unwrap()), "{rows:#?}");
    }

    #[test]
    fn forty_columns_and_ten_rows_are_of_use() {
        let rows = shown(&twelve(), 40, 10);
        assert_eq!(
            rows[..3],
            [
                "http://127.0.0.1:23001   Ctrl-C stops",
                "SERVICE             READY WANTED ACTIVE",
                "productio…service-0     1      1      0",
            ]
            .map(str::to_owned)
        );
    }

    #[test]
    fn a_wide_terminal_shows_the_reason_beside_each_service() {
        let rows = shown(&twelve(), 200, 30);
        assert!(rows[1].ends_with("  WHY") && rows[2].contains("  now: average 0.0"), "{rows:#?}");
        assert!(rows.iter().all(|row| columns::width(row) <= 199) && rows.len() == 14, "{rows:#?}");
    }

    #[test]
    fn a_failing_service_says_why_before_healthy_ones_do() {
        let mut view = view(&["a", "b", "c", "d"]);
        view.services[3].is_failing = true;
        view.services[3].reasons.insert(0, "crashing (8 starts, exit code 1)".to_owned());
        let rows = shown(&view, 80, 16);
        assert!(rows.iter().any(|row| row.starts_with("  crashing (8 starts")), "{rows:#?}");
    }

    #[test]
    fn what_an_app_wrote_cannot_move_the_cursor() {
        assert_eq!(plain("a\x1b[31mb\x1b[2Jc\td\r\u{7}"), "abc d");
    }

    #[test]
    fn numbers_in_names_count_by_their_value() {
        let mut names = ["a-10", "a-2", "a-1", "a", "b-1", "a-02"];
        names.sort_by(|one, other| natural(one, other));
        assert_eq!(names, ["a", "a-1", "a-02", "a-2", "a-10", "b-1"]);
    }
}
