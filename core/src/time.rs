//! A point in time as a value. The driver chooses the epoch: live drivers use the Unix epoch, so that
//! one-second buckets align with the wall clock; the simulator starts where its trace starts.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in time: whole nanoseconds since an epoch the driver chooses.
///
/// Always the first argument of whatever needs it, always called `now`. Arithmetic saturates: a `Time` never
/// wraps and never panics. In JSON it is the bare number of nanoseconds.
///
/// ```
/// use pilotlight_core::Time;
/// use std::time::Duration;
/// let start = Time::from_secs(100);
/// let later = start + Duration::from_millis(2_500);
/// assert_eq!(later - start, Duration::from_millis(2_500));
/// assert_eq!(start - later, Duration::ZERO);
/// assert_eq!(later.whole_seconds(), 102);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(u64);

impl Time {
    /// The driver's epoch itself.
    pub const EPOCH: Time = Time(0);

    /// The point `nanos` nanoseconds after the epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Time(nanos)
    }

    /// The point `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Time(millis.saturating_mul(1_000_000))
    }

    /// The point `secs` seconds after the epoch.
    pub const fn from_secs(secs: u64) -> Self {
        Time(secs.saturating_mul(NANOS_PER_SECOND))
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Seconds since the epoch, with their fraction; for showing, never for deciding.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / NANOS_PER_SECOND as f64
    }

    /// Whole seconds since the epoch: the number of the one-second bucket this point falls in.
    pub const fn whole_seconds(self) -> u64 {
        self.0 / NANOS_PER_SECOND
    }

    /// How long ago `earlier` was; zero if it lies in the future.
    pub const fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, by: Duration) -> Time {
        Time(self.0.saturating_add(saturating_nanos(by)))
    }
}

impl AddAssign<Duration> for Time {
    fn add_assign(&mut self, by: Duration) {
        *self = *self + by;
    }
}

impl Sub<Duration> for Time {
    type Output = Time;
    fn sub(self, by: Duration) -> Time {
        Time(self.0.saturating_sub(saturating_nanos(by)))
    }
}

impl Sub<Time> for Time {
    type Output = Duration;
    fn sub(self, earlier: Time) -> Duration {
        self.since(earlier)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.0 / NANOS_PER_SECOND, self.0 % NANOS_PER_SECOND)
    }
}

fn saturating_nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_units_agree() {
        assert_eq!(Time::from_secs(3), Time::from_millis(3_000));
        assert_eq!(Time::from_millis(3), Time::from_nanos(3_000_000));
        assert_eq!(Time::EPOCH, Time::from_nanos(0));
        assert_eq!(Time::from_millis(2_750).as_secs_f64(), 2.75);
    }

    #[test]
    fn a_bucket_is_the_whole_second_it_began() {
        let bucket = |nanos| Time::from_nanos(nanos).whole_seconds();
        assert_eq!([0, 999_999_999, 1_000_000_000].map(bucket), [0, 0, 1]);
    }

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let end = Time::from_nanos(u64::MAX);
        assert_eq!(end + Duration::from_nanos(1), end);
        assert_eq!(Time::EPOCH + Duration::MAX, end);
        assert_eq!(Time::from_secs(u64::MAX), end);
        assert_eq!(Time::from_secs(1) - Duration::from_secs(2), Time::EPOCH);
        assert_eq!(Time::from_secs(1) - Time::from_secs(2), Duration::ZERO);
        assert_eq!(end - Duration::MAX, Time::EPOCH);
    }

    #[test]
    fn json_is_the_bare_number_of_nanoseconds() {
        // Beyond 2^53, where numbers read as floats would lose their last digits.
        let time = Time::from_nanos(1_700_000_000_123_456_789);
        let json = serde_json::to_string(&time).unwrap();
        assert_eq!(json, "1700000000123456789");
        assert_eq!(serde_json::from_str::<Time>(&json).unwrap(), time);
    }

    #[test]
    fn it_shows_itself_in_seconds() {
        assert_eq!(format!("{:?}", Time::from_millis(1_002_050)), "1002.050000000s");
    }
}
