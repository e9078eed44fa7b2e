//! Traces in each format: excerpts in the form the tools and platforms write them.

mod traces;

use std::time::Duration;

use pilotlight_core::{
    History, Input, PodCounts, Record, Revision, RevisionId, RevisionSpec, Start, Stat, Time,
};
use traces::{error, format, load, millis, read};

#[test]
fn plain_traces_have_columns_in_any_order_quotes_and_crlf() {
    let traffic = read("\u{feff}duration_s,revision,\"t_start_s\"\r\n0.5,\"a\",2.25\r\n,b,1\r\n0,a,3\r\n");
    assert_eq!(millis(&traffic), [(1_000, None), (2_250, Some(500)), (3_000, Some(0))]);
    assert_eq!(traffic.duration(), Duration::from_secs(4));
    assert_eq!(format(&traffic), "plain");
    let text = "t_start_s,duration_s,revision\n1,1,a\n2,1,b\n";
    assert_eq!(millis(&load(&[("f", text)], "file: f, revision: b").unwrap()), [(2_000, Some(1_000))]);
    assert_eq!(millis(&read("t_start_s\n0\n0\n")), [(0, None), (0, None)]);
}

#[test]
fn what_is_written_as_plain_reads_back_the_same() {
    let before = read("t_start_s,duration_s\n0.000000001,0.1\n1.5,\n86399.123456789,3600\n");
    let mut text = Vec::new();
    assert_eq!(before.write_plain(1, &mut text).unwrap(), 3);
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text, "t_start_s,duration_s\n0.000000001,0.1\n1.5,\n86399.123456789,3600\n");
    assert!(before.arrivals(1).eq(read(&text).arrivals(1)));
}

#[test]
fn unix_times_are_moved_to_the_start_of_their_second() {
    let traffic = read("t_start_s\n1700000010.25\n1700000012.5\n");
    assert_eq!(millis(&traffic), [(250, None), (2_500, None)]);
}

#[test]
fn language_models_take_what_their_tokens_cost() {
    let text = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
                2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:05.0319600,3180,8\n";
    let cost = "tokens: {base: 100ms, prompt: 1ms, generated: 20ms}";
    let traffic = load(&[("f", text)], &format!("file: f, {cost}")).unwrap();
    assert_eq!(millis(&traffic), [(979, Some(5_108)), (2_031, Some(3_440))]);
    let without = read(text);
    assert_eq!((format(&without), millis(&without)[0]), ("azure-llm".to_owned(), (979, None)));
    assert!(without.loaded()[0].notes[0].contains("tokens"));
}

#[test]
fn azure_2021_starts_where_the_end_minus_the_duration_is() {
    let text = "app,func,end_timestamp,duration\na,f1,10.5,0.5\na,f2,4,1\nb,f1,2,3\n";
    let traffic = read(text);
    assert_eq!(millis(&traffic), [(0, Some(3_000)), (3_000, Some(1_000)), (10_000, Some(500))]);
    assert_eq!(format(&traffic), "azure-functions-2021");
    assert_eq!(millis(&load(&[("f", text)], "file: f, function: f2").unwrap()), [(3_000, Some(1_000))]);
}

#[test]
fn whole_seconds_are_spread_within_their_second_and_kept_in_it() {
    let rows = "2024-11-15 16:57:50,OK,32.0\n".repeat(50) + "2024-11-15 16:57:51,OK,1\n";
    let traffic = read(&format!("gmt_create,predict_status,exec_time_seconds\n{rows}"));
    let all = millis(&traffic);
    assert_eq!(all.len(), 51);
    assert!(all[..50].iter().all(|(at, service)| *at < 1_000 && *service == Some(32_000)));
    let mut distinct: Vec<u64> = all.iter().map(|(at, _)| *at).collect();
    distinct.dedup();
    assert!(distinct.len() > 30, "{distinct:?}");
    assert!((1_000..2_000).contains(&all[50].0));
    assert!(traffic.loaded()[0].to_string().contains("whole seconds"));
}

#[test]
fn access_logs_of_nginx_are_of_the_end() {
    let log = |second: u32, more: &str| {
        format!(
            "10.0.0.1 - - [10/Oct/2000:13:55:{second:02} -0700] \"GET /a?b=\\\"c\\\" HTTP/1.1\" 200 2326 \"-\" \"curl/8 [x]\"{more}\n"
        )
    };
    let traffic = read(&(log(36, " 2.500") + &log(38, " \"-\" rt=0.250 uct=0.1")));
    assert_eq!(format(&traffic), "nginx");
    let all = millis(&traffic);
    assert_eq!((all[0].1, all[1].1), (Some(2_500), Some(250)));
    // Ends are one to three seconds apart, and what was taken off differs by 2.25 s.
    assert!((3_250..=5_250).contains(&(all[1].0 - all[0].0)), "{all:?}");
    let combined = read(&log(36, ""));
    assert_eq!(millis(&combined)[0].1, None);
}

#[test]
fn access_logs_of_envoy_and_istio_have_their_duration_in_milliseconds() {
    let envoy = "[2016-04-15T20:17:00.310Z] \"POST /api/v1/locations HTTP/2\" 204 - 154 0 226 100 \"10.0.35.28\" \
                 \"nsq2http\" \"cc21d9b0-cf5c-432b-8c7e-98aeb7988cd2\" \"locations\" \"tcp://10.0.2.1:80\"\n";
    let istio = "[2020-11-25T21:26:18.409Z] \"GET /status/418 HTTP/1.1\" 418 - via_upstream - \"-\" 0 135 3 1 \"-\" \
                 \"curl/7.73.0\" \"84961386-6d84-929d-98bd-c5aee93b5c88\" \"httpbin:8000\" \"127.0.0.1:80\"\n";
    let traffic = read(envoy);
    assert_eq!((format(&traffic), millis(&traffic)), ("envoy".to_owned(), vec![(310, Some(226))]));
    assert_eq!(millis(&read(istio)), [(409, Some(3))]);
}

#[test]
fn json_lines_have_their_fields_named() {
    let text = "{\"req\": {\"at\": 1700000000.5, \"took\": \"120ms\"}}\n{\"req\": {\"at\": 1700000002000, \"took\": 80}}\n";
    let more = "file: f, time: req.at, duration: req.took, duration-unit: ms";
    let traffic = load(&[("f", text)], more).unwrap();
    assert_eq!(millis(&traffic), [(500, Some(120)), (2_000, Some(80))]);
    let ended = load(&[("f", text)], &format!("{more}, stamped: end")).unwrap();
    assert_eq!(millis(&ended), [(380, Some(120)), (1_920, Some(80))]);
    let dated = "{\"time\": \"2023-11-16T18:17:03.5+01:00\"}\n";
    assert_eq!((format(&read(dated)), millis(&read(dated))), ("json-lines".to_owned(), vec![(500, None)]));
    assert!(error(text, "").contains("there is no field \"time\""));
}

#[test]
fn load_generators_results_become_their_load() {
    let vegeta = "1700000000250000000,200,12000000,5,0,\"\",aGk=,att,0,GET,http://a/,\n\
                  1700000001000000000,200,8000000,5,0,\"\",aGk=,att,1,GET,http://a/,\n";
    assert_eq!(millis(&read(vegeta)), [(250, Some(12)), (1_000, Some(8))]);
    assert_eq!(format(&read(vegeta)), "vegeta");
    let hey = "response-time,DNS+dialup,DNS,Request-write,Response-delay,Response-read,status-code,offset\n\
               0.5000,0.0,0.0,0.0,0.4,0.0,200,0.0010\n0.2500,0.0,0.0,0.0,0.2,0.0,200,0.7500\n";
    assert_eq!(millis(&read(hey)), [(1, Some(500)), (750, Some(250))]);
    assert_eq!(format(&read(hey)), "hey");
}

#[test]
fn counts_are_kept_whatever_is_random() {
    let text = "day,time,f1,f2\n0,0,3,1\n0,60,0,1\n0,180,120,1\n";
    for arrivals in ["uniform", "poisson"] {
        let more = format!("file: f, format: per-minute, column: f1, arrivals: {arrivals}");
        let traffic = load(&[("f", text)], &more).unwrap();
        assert_eq!(traffic.duration(), Duration::from_secs(240));
        for seed in 0..20 {
            let mut minutes = [0; 4];
            traffic
                .arrivals(seed)
                .for_each(|arrival| minutes[(arrival.at.whole_seconds() / 60) as usize] += 1);
            assert_eq!(minutes, [3, 0, 0, 120], "{arrivals}, seed {seed}");
        }
    }
    let even = load(&[("f", "n\n2\n0\n1\n")], "file: f, format: per-second, arrivals: uniform").unwrap();
    assert_eq!(millis(&even), [(250, None), (750, None), (2_500, None)]);
    // A part of an interval has what falls into it.
    let part = even.cut(Duration::from_millis(500), Duration::from_millis(2_600));
    assert_eq!(millis(&part), [(250, None), (2_000, None)]);
}

#[test]
fn requests_of_an_interval_are_spread_over_it_like_independent_ones() {
    let traffic = load(&[("f", "n\n100000\n")], "file: f, format: per-second").unwrap();
    let mut tenths = [0u32; 10];
    traffic.arrivals(3).for_each(|arrival| tenths[(arrival.at.as_nanos() / 100_000_000) as usize] += 1);
    // Binomial: five deviations of 10,000 are 474.
    assert!(tenths.iter().all(|tenth| tenth.abs_diff(10_000) < 474), "{tenths:?}");
    let described = traffic.describe(3);
    assert!((described.gap_cv.unwrap() - 1.0).abs() < 0.02, "{:?}", described.gap_cv);
}

#[test]
fn rates_that_are_no_whole_numbers_are_rates() {
    let text = "rate\n".to_owned() + &"2.5\n".repeat(4_000);
    let traffic = load(&[("f", &text)], "file: f, format: per-second").unwrap();
    let found = traffic.arrivals(1).count() as f64;
    assert!((found - 10_000.0).abs() < 500.0, "{found}");
    assert_ne!(traffic.arrivals(1).count(), traffic.arrivals(2).count());
}

/// A table of Azure's with 1,440 minutes: what is called in minute 2 and in minute 1,440.
fn azure(functions: &[(&str, u32, u32)]) -> String {
    let minutes: Vec<String> = (1..=1_440).map(|minute| minute.to_string()).collect();
    let mut text = format!("HashOwner,HashApp,HashFunction,Trigger,{}\n", minutes.join(","));
    for (function, second, last) in functions {
        let zeros = "0,".repeat(1_437);
        text += &format!("o,a,{function},http,0,{second},{zeros}{last}\n");
    }
    text
}

#[test]
fn azure_2019_has_a_line_a_function_and_its_durations_beside() {
    let durations = "HashOwner,HashApp,HashFunction,Average,Count,Minimum,Maximum,percentile_Average_0,\
                     percentile_Average_1,percentile_Average_25,percentile_Average_50,percentile_Average_75,\
                     percentile_Average_99,percentile_Average_100\n\
                     o,a,abc,1,1,1,1,10,10,10,10,10,10,10\no,a,def,1,1,1,1,500,500,500,500,500,500,500\n";
    let files = [("f", &azure(&[("abc", 300, 0), ("def", 100, 5)])[..]), ("d", durations)];
    let all = load(&files, "file: f, durations: d").unwrap();
    assert_eq!(format(&all), "azure-functions-2019");
    assert_eq!((all.duration(), all.loaded()[0].requests), (Duration::from_secs(86_400), 405));
    assert_eq!(all.loaded()[0].notes, ["2 functions together"]);
    let taken = |wanted| millis(&all).iter().filter(|(_, service)| *service == Some(wanted)).count();
    assert_eq!(taken(10) + taken(500), 405);
    // 300 of 405 on average; five deviations are 44.
    assert!(taken(10).abs_diff(300) < 44, "{}", taken(10));
    let one = load(&files, "file: f, function: d, durations: d").unwrap();
    assert_eq!(one.arrivals(1).count(), 105);
    assert!(millis(&one).iter().all(|(at, service)| *at >= 60_000 && *service == Some(500)));
    assert!(load(&files, "file: f, function: x").unwrap_err().contains("begins with \"x\""));
}

#[test]
fn a_range_query_gives_the_rates_of_the_steps_before_its_times() {
    let text = r#"{"status":"success","data":{"resultType":"matrix","result":[
        {"metric":{"pod":"a"},"values":[[1700000060,"2"],[1700000120,"NaN"],[1700000240,"0.5"]]},
        {"metric":{"pod":"b"},"values":[[1700000060,"1"]]}]}}"#;
    let traffic = load(&[("f", text)], "file: f, arrivals: uniform").unwrap();
    assert_eq!((format(&traffic), traffic.duration()), ("prometheus".to_owned(), Duration::from_secs(240)));
    let mut minutes = [0; 4];
    traffic.arrivals(1).for_each(|arrival| minutes[(arrival.at.whole_seconds() / 60) as usize] += 1);
    assert_eq!(minutes, [180, 0, 0, 30]);
    let instant = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
    assert!(error(instant, "").contains("ask query_range, not query"));
    assert!(error(r#"{"status":"error","error":"bad query"}"#, ", format: prometheus").contains("bad query"));
}

#[test]
fn a_journal_gives_the_load_its_inputs_were_about() {
    let mut text = String::new();
    let spec = RevisionSpec::default();
    let start = Start {
        at: Time::from_secs(1_700_000_000),
        spec,
        pods: PodCounts::default(),
        history: History::default(),
    };
    let mut revision = Revision::new(start.at, start.spec.clone(), start.pods);
    let mut first = Some(start.clone());
    for second in 1..=4u64 {
        let at = start.at + Duration::from_secs(second) + Duration::from_millis(100);
        let scraped = Stat { request_count: 20.0, proxied_request_count: 15.0, ..Stat::default() };
        let pushed = Stat { request_count: 15.0, average_concurrent_requests: 1.0, ..Stat::default() };
        let inputs: Vec<_> =
            [Input::Scraped(scraped), Input::Pushed(pushed), Input::Tick].map(|input| (at, input)).into();
        for (at, input) in &inputs {
            revision.step(*at, input.clone());
        }
        let evaluation = revision.evaluation().unwrap().clone();
        let revision = RevisionId::new("default", "hello");
        let record = Record { revision, start: first.take(), inputs, evaluation, why: String::new() };
        text += &(serde_json::to_string(&record).unwrap() + "\n");
    }
    let traffic = load(&[("f", &text)], "file: f, arrivals: uniform").unwrap();
    assert_eq!((format(&traffic), traffic.duration()), ("journal".to_owned(), Duration::from_secs(4)));
    assert_eq!(
        traffic.arrivals(1).count(),
        80,
        "5 straight and 15 through the activator in each of 4 seconds"
    );
    let cut_off = &text[..text.len() - 20];
    assert_eq!(load(&[("f", cut_off)], "file: f").unwrap().arrivals(1).count(), 60);
    assert!(error(&text, ", revision: default/helo").contains("did you mean \"default/hello\""));
}

#[test]
fn a_bad_line_is_an_error_with_its_number_or_counted_and_told() {
    let text = "t_start_s,duration_s\n1,1\nx,1\n2\n3,1\n";
    assert_eq!(
        error(text, ""),
        "f, line 3: t_start_s is \"x\", not a number of at least zero (skip-bad-lines passes over such lines)"
    );
    let traffic = load(&[("f", text)], "file: f, skip-bad-lines: true").unwrap();
    assert_eq!(traffic.arrivals(1).count(), 3, "a duration that is not there is not known");
    let loaded = &traffic.loaded()[0];
    assert_eq!((loaded.bad_lines, loaded.first_bad_line.as_ref().unwrap().0), (1, 3));
    assert!(loaded.to_string().contains("1 bad line was passed over, the first is line 3"), "{loaded}");
}

#[test]
fn every_format_names_the_line_and_what_is_wrong_with_it() {
    for (text, more, expected) in [
        (
            "gmt_create,exec_time_seconds\n2024-11-15,3\n",
            "",
            "line 2: gmt_create is \"2024-11-15\", not a date",
        ),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,4.5,1\n",
            "",
            "line 2: ContextTokens is \"4.5\", not a whole number",
        ),
        ("func,end_timestamp,duration\nf,1\n", "", "line 2: it ends before duration, with 2 columns"),
        ("[2016-04-15T20:17:00.310Z] \"GET / HTTP/2\" 204 - 154 0 x\n", "", "line 1: field 7 is \"x\""),
        (
            "1.1.1.1 - - [10/Oct/2000:13:55:36 -0700] \"G\" 200 1\nhello\n",
            "",
            "line 2: there is no [time] in it",
        ),
        ("{\"time\": true}\n", "", "line 1: time is true, not a time"),
        ("{\"time\": 1}\n{\n", "", "line 2: it is not JSON"),
        ("n\n1\n-1\n", ", format: per-second", "line 3: the count is \"-1\""),
        ("1700000000250000000,200,x\n", "", "line 1: the latency is \"x\""),
    ] {
        let error = error(text, more);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (text, more, expected) in [
        (
            "a,b\n1,2\n",
            "",
            "its format is not recognised; name it with `--trace-format`, or `format:` in a scenario: plain, per-second",
        ),
        ("", "", "its format is not recognised"),
        ("t_start_s\n", "", "it holds no requests"),
        ("n\n0\n0\n", ", format: per-minute", "it holds no requests"),
        ("t_start_s\n1\n", ", format: hey", "there is no column \"offset\"; there are t_start_s"),
        ("time,a,b\n1,2,3\n", ", format: per-second", "name the one with the counts by `column:`"),
        ("time,ab,b\n1,2,3\n", ", format: per-second, column: ac", "did you mean \"ab\""),
        ("t_start_s\n1\n", ", column: x", "column means nothing for plain"),
        ("t_start_s\n1\n", ", arrivals: poisson", "arrivals means nothing for plain"),
        ("t_start_s\n1\n", ", fromat: plain", "fromat"),
    ] {
        let error = error(text, more);
        assert!(error.contains(expected), "{error}");
    }
    assert!(load(&[], "file: none.csv").unwrap_err().starts_with("none.csv: "));
}

#[test]
fn a_part_of_a_trace_is_exactly_that_part() {
    let traffic = read("t_start_s\n0\n1\n1.999999999\n2\n3\n");
    assert_eq!(
        millis(&traffic.cut(Duration::from_secs(1), Duration::from_secs(2))),
        [(0, None), (999, None)]
    );
    assert_eq!(millis(&traffic.cut(Duration::from_secs(2), Duration::MAX)), [(0, None), (1_000, None)]);
    assert_eq!(traffic.cut(Duration::from_secs(9), Duration::MAX).arrivals(1).count(), 0);
}

#[test]
fn a_description_knows_the_service_times_of_a_trace() {
    let lines: String = (1..=100).map(|at| format!("{at},{at}\n")).collect();
    let described = read(&format!("t_start_s,duration_s\n{lines}101,\n")).describe(1);
    let service = described.service.unwrap();
    assert_eq!((described.requests, service.known), (101, 100));
    let expected = [50.5, 50.0, 90.0, 99.0, 100.0];
    let found = [service.mean_s, service.p50_s, service.p90_s, service.p99_s, service.max_s];
    assert!(
        found.iter().zip(expected).all(|(found, expected)| (found / expected - 1.0).abs() < 0.001),
        "{found:?}"
    );
}

/// Locust's history of 20 seconds: two names and their sum, of which the total grows by 12 a second.
fn locust() -> String {
    let mut text = "Timestamp,User Count,Type,Name,Requests/s,Failures/s,50%,66%,Total Request Count,Total Failure Count\n"
        .to_owned();
    for second in 0..20 {
        let at = 1_696_946_130 + second;
        for (kind, name, each) in [("GET", "/", 8), ("GET", "/slow", 4), ("", "Aggregated", 12)] {
            text += &format!("{at},5,{kind},{name},{each}.000000,0.000000,12,15,{},0\n", each * second);
        }
    }
    text
}

#[test]
fn sums_of_locust_are_not_added_to_what_they_are_the_sum_of() {
    let all = read(&locust());
    assert_eq!((format(&all), all.arrivals(1).count()), ("locust".to_owned(), 12 * 19));
    let one = load(&[("f", &locust())], "file: f, name: /slow").unwrap();
    assert_eq!(one.arrivals(1).count(), 4 * 19);
    assert!(error(&locust(), ", name: /slo").contains("did you mean \"/slow\""));
    let rates = load(&[("f", &locust())], "file: f, format: per-second, column: Requests/s").unwrap();
    assert_eq!(rates.arrivals(1).count(), 12 * 20, "the sum's rows only");
    let slow =
        load(&[("f", &locust())], "file: f, format: per-second, column: Requests/s, name: /slow").unwrap();
    assert_eq!(slow.arrivals(1).count(), 4 * 20);
}

#[test]
fn rows_that_are_not_a_second_apart_are_rates_of_their_step_or_asked_for() {
    let rates = "time,value\n2023-10-10 13:55:00,12.3\n2023-10-10 13:55:15,14.1\n2023-10-10 13:55:30,\n";
    let traffic = load(&[("f", rates)], "file: f, format: per-second").unwrap();
    assert_eq!((traffic.duration().as_secs(), traffic.loaded()[0].requests), (45, 396));
    assert!(traffic.loaded()[0].to_string().contains("15s apart"));
    let whole = "time,value\n0,12\n15,14\n30,10\n";
    let asked = error(whole, ", format: per-second");
    for part in ["15s apart", "`step=15s`", "per-interval"] {
        assert!(asked.contains(part), "{asked}");
    }
    let count = |more: &str| load(&[("f", whole)], &format!("file: f, {more}")).unwrap().arrivals(1).count();
    assert_eq!(count("format: per-second, step: 15s"), 36 * 15);
    assert_eq!(count("format: per-second, step: 1s"), 36, "seconds in which nothing came are missing");
    assert_eq!(count("format: per-interval"), 36);
    let slow = load(&[("f", whole)], "file: f, format: per-minute, step: 15s").unwrap();
    assert_eq!(slow.loaded()[0].requests, 36 / 4);
    let missing = "second,n\n0,3\n1,2\n10,4\n";
    assert_eq!(load(&[("f", missing)], "file: f, format: per-second").unwrap().arrivals(1).count(), 9);
}

#[test]
fn grafanas_tables_have_their_unit_in_a_name_or_a_number() {
    let named = "\"Time\",\"requests/s\"\n2023-10-10 13:55:00,2.5\n2023-10-10 13:56:00,1.5\n";
    let traffic = read(named);
    assert_eq!((format(&traffic), traffic.loaded()[0].requests), ("grafana".to_owned(), 240));
    let shown = "\"Time\",\"{job=\"\"web\"\"}\"\n1696946100000,1.5 K req/s\n1696946160000,500 req/s\n";
    assert_eq!(read(shown).loaded()[0].requests, 2_000 * 60);
    let unknown = "\"Time\",\"Value\"\n2023-10-10 13:55:00,2.5\n2023-10-10 13:56:00,1.5\n";
    assert!(error(unknown, "").contains("nothing says what its numbers are"));
}

#[test]
fn results_of_load_generators_have_their_own_units_and_ends() {
    let k6 = r#"{"type":"Metric","data":{"name":"http_req_duration","type":"trend","contains":"time"},"metric":"http_req_duration"}
{"metric":"http_reqs","type":"Point","data":{"time":"2023-10-10T13:55:36.5Z","value":1,"tags":{"name":"/"}}}
{"metric":"http_req_duration","type":"Point","data":{"time":"2023-10-10T13:55:36.5Z","value":250.5,"tags":{"name":"/"}}}
"#;
    assert_eq!((format(&read(k6)), millis(&read(k6))), ("k6".to_owned(), vec![(249, Some(250))]));
    let k6 = "metric_name,timestamp,metric_value,check,error,group,method,name,status\n\
              http_reqs,1696946136,1.000000,,,,GET,http://a/,200\n\
              http_req_duration,1696946136,221.899000,,,,GET,http://a/,200\n\
              http_req_duration,1696946138,119.5,,,,GET,http://a/,200\n";
    let traffic = read(k6);
    assert_eq!((format(&traffic), traffic.arrivals(1).count()), ("k6".to_owned(), 2));
    let jmeter = "timeStamp,elapsed,label,responseCode,responseMessage,threadName,success\n\
                  1696946136100,120,home,200,OK,t 1-1,true\n1696946136300,80,cart,200,OK,t 1-1,true\n\
                  1696946136100,200,Buy,200,\"Number of samples in transaction : 2, number of failing samples : 0\",t 1-1,true\n";
    let traffic = read(jmeter);
    assert_eq!(
        (format(&traffic), millis(&traffic)),
        ("jmeter".to_owned(), vec![(100, Some(120)), (300, Some(80))])
    );
    assert!(traffic.loaded()[0].to_string().contains("1 line left out: sums of a transaction"));
    assert_eq!(millis(&load(&[("f", jmeter)], "file: f, name: cart").unwrap()), [(300, Some(80))]);
    let oha = "request-start,DNS,DNS+dialup,Response-delay,request-duration,bytes,status\n\
               0.002211678,0.000374078,0.001148565,0.002619327,0.002626127,11,200\n";
    assert_eq!((format(&read(oha)), millis(&read(oha))), ("oha".to_owned(), vec![(2, Some(2))]));
}

#[test]
fn a_number_is_the_name_of_a_column() {
    let text = "day,time,0,1\n0,0,3,1\n0,60,4,1\n";
    assert_eq!(
        load(&[("f", text)], "file: f, format: per-minute, column: 0").unwrap().arrivals(1).count(),
        7
    );
}

#[test]
fn a_header_says_no_other_number_than_the_line_below_it() {
    let rates = load(&[("f", "n\n2.5\n3.25\n1.5\n")], "file: f, format: per-second").unwrap();
    let described = rates.describe(1).to_string();
    assert!(described.starts_with("f: per-second\nrequests "), "{described}");
    let counts =
        load(&[("f", "n\n2\n3\n1\n")], "file: f, format: per-second").unwrap().describe(1).to_string();
    assert!(counts.starts_with("f: per-second, 6 requests\nrequests        6 in "), "{counts}");
}

#[test]
fn a_description_has_honest_digits_and_the_true_longest() {
    let lines: String = (0..100).map(|at| format!("{at},0.226\n")).collect();
    let described = read(&format!("t_start_s,duration_s\n{lines}100,30.001\n")).describe(1);
    assert_eq!(described.service.unwrap().max_s, 30.001);
    let text = described.to_string();
    assert!(text.contains("p50 226ms, p90 226ms, p99 226ms, max 30.001s"), "{text}");
}
