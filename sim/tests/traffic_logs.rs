//! Logs as the programs people run write them: lines in their documented formats, and what the numbers in them are.

mod traces;

use traces::{error, format, load, millis, read, service_millis, starts_millis};

/// Lines of the combined format, a second apart, with something behind each.
fn combined(behind: &[&str]) -> String {
    let line = |(second, more): (usize, &&str)| {
        format!(
            "10.0.0.{second} - - [10/Oct/2023:13:55:{second:02} +0000] \"GET /a HTTP/1.1\" 200 5120 \"-\" \"curl/8.4.0\"{more}\n"
        )
    };
    behind.iter().enumerate().map(line).collect()
}

#[test]
fn ingress_nginx_has_its_request_time_behind_the_length() {
    let lines = [
        " 489 0.003 [default-web-80] [] 10.1.2.3:8080 5 0.003 200 5f1a6c",
        " 512 0.250 [default-web-80] [] 10.1.2.3:8080 5 0.251 200 77aa01",
        " 512 1.250 [default-web-80] [] 10.1.2.3:8080, 10.1.2.4:8080 0, 5 1.000, 0.250 502, 200 77aa02",
        " 512 0.000 [upstream-default-backend] [] - - - - 77aa03",
    ];
    let traffic = read(&combined(&lines));
    assert_eq!(format(&traffic), "nginx");
    assert_eq!(service_millis(&traffic), [0, 3, 250, 1_250]);
}

#[test]
fn of_several_times_of_nginx_the_longest_is_the_requests() {
    let traffic = read(&combined(&[" 0.100 0.300", " 0.000 0.200"]));
    assert_eq!(service_millis(&traffic), [200, 300]);
    let named = read(&combined(&[" uct=\"0.001\" urt=\"0.290\" rt=0.300 msec=1696946136.123"]));
    assert_eq!(service_millis(&named), [300]);
    let neither = error(&combined(&[" 0.100 0.300", " 0.300 0.100"]), "");
    assert!(neither.contains("`duration=10` or another"), "{neither}");
    let said = load(&[("f", &combined(&[" 0.100 0.300", " 0.300 0.100"]))], "file: f, duration: 11").unwrap();
    assert_eq!(service_millis(&said), [100, 300]);
}

#[test]
fn a_whole_number_is_asked_for_and_never_a_time_of_nginx() {
    let lines = combined(&[" 301574", " 290001", " 4000"]);
    let asked = error(&lines, "");
    for part in ["field 10 (301574)", "`duration-unit=us`", "%T", "`duration=none`"] {
        assert!(asked.contains(part), "{asked}");
    }
    let micros = load(&[("f", &lines)], "file: f, duration-unit: us").unwrap();
    assert_eq!((format(&micros), service_millis(&micros)), ("apache".to_owned(), vec![4, 290, 301]));
    assert!(micros.loaded()[0].notes.iter().any(|note| note.contains("stamped=end")));
    let none = load(&[("f", &lines)], "file: f, duration: none").unwrap();
    assert!(millis(&none).iter().all(|(_, service)| service.is_none()));
    let nginx = load(&[("f", &lines)], "file: f, format: nginx").unwrap();
    assert!(millis(&nginx).iter().all(|(_, service)| service.is_none()));
    // Two that may be one: which, and then in which unit.
    let two = combined(&[" 489 301574"]);
    assert!(error(&two, ", duration-unit: us").contains("`duration=10` or another"));
    let second = load(&[("f", &two)], "file: f, duration-unit: us, duration: 11").unwrap();
    assert_eq!(service_millis(&second), [301]);
    assert!(error(&two, ", duration: 11").contains("a number without a unit"));
}

#[test]
fn apaches_time_is_the_start_and_all_others_are_the_end() {
    let apache =
        load(&[("f", &combined(&[" 5000000", " 500000"]))], "file: f, format: apache, duration-unit: us")
            .unwrap();
    let starts = starts_millis(&apache);
    assert!(starts[0] < 1_000 && (1_000..2_000).contains(&starts[1]), "{starts:?}");
    // The first lasts longer than the log: its start lies seconds before.
    let end = load(
        &[("f", &combined(&[" 5000000", " 500000"]))],
        "file: f, format: apache, duration-unit: us, stamped: end",
    );
    let starts = starts_millis(&end.unwrap());
    assert!((4_500..=6_500).contains(&(starts[1] - starts[0])), "{starts:?}");
    let gunicorn = combined(&[" 0.301574", " 0.290000"]);
    let traffic = read(&gunicorn);
    assert_eq!((format(&traffic), service_millis(&traffic)), ("gunicorn".to_owned(), vec![290, 301]));
    let declared =
        load(&[("f", &combined(&[" 301574"]))], "file: f, format: gunicorn, duration-unit: us").unwrap();
    assert_eq!(service_millis(&declared), [301]);
    assert!(error(&combined(&[" 301574"]), ", format: gunicorn").contains("duration-unit=us"));
}

#[test]
fn whole_seconds_of_apache_are_doubted() {
    let traffic = load(&[("f", &combined(&[" 0", " 1", " 0"]))], "file: f, duration-unit: s").unwrap();
    assert_eq!(service_millis(&traffic), [0, 0, 1_000]);
    assert!(traffic.loaded()[0].warnings.iter().any(|warning| warning.contains("whole seconds")));
}

#[test]
fn a_unit_behind_a_number_is_its_unit() {
    assert_eq!(
        service_millis(&read(&combined(&[" 12.345 ms", " 0.512 ms"]))),
        [0, 12],
        "as morgan writes it"
    );
    assert_eq!(service_millis(&read(&combined(&[" duration_us=12345"]))), [12]);
    assert_eq!(service_millis(&read(&combined(&[" took=45ms"]))), [45]);
}

#[test]
fn traefik_ends_with_milliseconds_and_its_time_is_the_start() {
    let line = |second: u32, took: u32| {
        format!(
            "192.168.1.{second} - - [10/Oct/2023:13:55:{second:02} +0000] \"GET /whoami HTTP/1.1\" 200 415 \"-\" \"curl/8.4.0\" \
             {second} \"whoami@docker\" \"http://172.18.0.3:80\" {took}ms\n"
        )
    };
    let traffic = read(&(line(1, 5_000) + &line(2, 40)));
    assert_eq!((format(&traffic), service_millis(&traffic)), ("traefik".to_owned(), vec![40, 5_000]));
    let json = r#"{"ClientHost":"192.168.1.1","DownstreamStatus":200,"Duration":41234567,"OriginDuration":40000000,"RequestMethod":"GET","StartLocal":"2023-10-10T13:55:36.100000000Z","StartUTC":"2023-10-10T13:55:36.100000000Z","level":"info","msg":"","time":"2023-10-10T13:55:36Z"}
{"ClientHost":"192.168.1.1","DownstreamStatus":200,"Duration":9000000,"OriginDuration":8000000,"RequestMethod":"GET","StartLocal":"2023-10-10T13:55:37.600000000Z","StartUTC":"2023-10-10T13:55:37.600000000Z","level":"info","msg":"","time":"2023-10-10T13:55:37Z"}
"#;
    assert_eq!(millis(&read(json)), [(100, Some(41)), (1_600, Some(9))]);
}

#[test]
fn haproxys_fifth_timer_is_the_total() {
    let log = "Feb  6 12:14:14 localhost haproxy[14389]: 10.0.1.2:33317 [06/Feb/2009:12:14:14.655] http-in static/srv1 \
               10/0/30/69/109 200 2750 - - ---- 1/1/1/1/0 0/0 {1wt.eu} {} \"GET /index.html HTTP/1.1\"\n\
               Feb  6 12:14:15 localhost haproxy[14389]: 10.0.1.2:33318 [06/Feb/2009:12:14:15.255] http-in~ static/<NOSRV> \
               -1/-1/-1/-1/50 408 212 - - cR-- 1/1/0/0/0 0/0 \"<BADREQ>\"\n\
               Feb  6 12:12:56 localhost haproxy[14387]: 10.0.1.2:33313 [06/Feb/2009:12:12:51.443] fnt bck/srv1 0/0/5007 \
               212 -- 0/0/0/0/3 0/0\n";
    let traffic = read(log);
    assert_eq!(
        (format(&traffic), millis(&traffic)),
        ("haproxy".to_owned(), vec![(655, Some(109)), (1_255, Some(50))])
    );
    assert!(traffic.loaded()[0].to_string().contains("1 line left out: TCP connections"));
}

#[test]
fn connections_of_istio_are_no_requests() {
    let log = "[2020-11-25T21:26:18.409Z] \"GET /status/418 HTTP/1.1\" 418 - via_upstream - \"-\" 0 135 3 1 \"-\" \"curl\" \
               \"84961386\" \"httpbin:8000\" \"127.0.0.1:80\"\n\
               [2020-11-25T21:26:19.409Z] \"- - -\" 0 - - - \"-\" 1250 900 60000 - \"-\" \"-\" \"-\" \"-\" \"10.0.0.1:5432\"\n";
    assert_eq!(millis(&read(log)), [(409, Some(3))]);
}

#[test]
fn the_load_balancers_of_aws_say_when_a_request_came() {
    let alb = "https 2018-07-02T22:23:00.186641Z app/my-loadbalancer/50dc6c495c0c9188 192.168.131.39:2817 10.0.0.1:80 0.086 \
               0.048 0.037 200 200 0 57 \"GET https://www.example.com:443/ HTTP/1.1\" \"curl/7.46.0\" \
               ECDHE-RSA-AES128-GCM-SHA256 TLSv1.2 arn:aws:elasticloadbalancing:us-east-2:123456789012:targetgroup/my-targets/73e2d6bc24d8a067 \
               \"Root=1-58337281-1d84f3d73c47ec4e58577259\" \"www.example.com\" \"arn:aws:acm:us-east-2:123456789012:certificate/12345678\" 1 \
               2018-07-02T22:22:59.186000Z \"authenticate,forward\" \"-\" \"-\" \"10.0.0.1:80\" \"200\" \"-\" \"-\"\n\
               http 2018-07-02T22:23:01.500000Z app/my-loadbalancer/50dc6c495c0c9188 192.168.131.39:2817 - -1 -1 -1 502 - 34 366 \
               \"GET http://www.example.com:80/ HTTP/1.1\" \"curl/7.46.0\" - - arn \"Root=1\" \"-\" \"-\" 0 \
               2018-07-02T22:23:01.250000Z \"forward\" \"-\" \"-\" \"-\" \"-\" \"-\" \"-\"\n";
    let traffic = read(alb);
    assert_eq!(
        (format(&traffic), millis(&traffic)),
        ("aws-alb".to_owned(), vec![(186, Some(171)), (2_250, None)])
    );
}

#[test]
fn cloudfront_has_tabs_and_the_end() {
    let fields = "#Version: 1.0\n#Fields: date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status time-taken\n";
    let line = |time: &str, taken: &str| {
        format!(
            "2019-12-04\t{time}\tLAX1\t2390282\t192.0.2.202\tGET\td111.cloudfront.net\t/index.html\t200\t{taken}\n"
        )
    };
    let text = format!("{fields}{}{fields}{}", line("21:02:31", "0.001"), line("21:02:33", "0.250"));
    let traffic = read(&text);
    assert_eq!((format(&traffic), service_millis(&traffic)), ("cloudfront".to_owned(), vec![1, 250]));
    assert!(error(&format!("{fields}{}", line("21:02:31", "250")), "").contains("not seconds with decimals"));
}

#[test]
fn what_a_container_wrote_is_read_through_its_wrapping() {
    let inner = "10.0.0.1 - - [10/Oct/2023:13:55:36 +0000] \"GET /a HTTP/1.1\" 200 5 \"-\" \"curl\" 489 0.003 [d-w-80] [] 10.1.2.3:80 5 0.003 200 ab";
    let cri = format!(
        "2023-10-10T13:55:36.100000000Z stderr F starting\n2023-10-10T13:55:36.200000000Z stdout F {inner}\n"
    );
    let started = read(&cri);
    assert_eq!((format(&started), service_millis(&started)), ("nginx".to_owned(), vec![3]));
    assert!(started.loaded()[0].to_string().contains("1 line left out: before the first request"));
    let (first, second) = inner.split_at(60);
    let cut = format!("2023-10-10T13:55:36.2Z stdout P {first}\n2023-10-10T13:55:36.2Z stdout F {second}\n");
    let cut = load(&[("f", &cut)], "file: f, format: nginx").unwrap();
    assert_eq!(service_millis(&cut), [3], "a line that was cut is one line");
    let docker = serde_json::json!({"log": format!("{inner}\n"), "stream": "stdout", "time": "2023-10-10T13:55:36.3Z"});
    assert_eq!(service_millis(&read(&format!("{docker}\n"))), [3]);
    let caddy = r#"{"level":"info","ts":1696946136.5,"logger":"http.log.access","msg":"handled request","request":{"method":"GET","uri":"/"},"duration":0.25,"size":10,"status":200}"#;
    let cri = format!("2023-10-10T13:55:36.2Z stderr F {caddy}\n");
    assert_eq!(millis(&read(&cri)), [(250, Some(250))]);
}

#[test]
fn lines_of_caddy_that_are_no_requests_are_left_out() {
    let log = r#"{"level":"info","ts":1696946130.1,"msg":"using provided configuration","config_file":"/etc/caddy/Caddyfile"}
{"level":"info","ts":1696946130.2,"logger":"admin","msg":"admin endpoint started","address":"localhost:2019"}
{"level":"info","ts":1696946136.5,"logger":"http.log.access.log0","msg":"handled request","request":{"remote_ip":"127.0.0.1","method":"GET","host":"localhost","uri":"/"},"bytes_read":0,"user_id":"","duration":0.000929675,"size":10900,"status":200}
2023/10/10 13:55:36 serving on :80
"#;
    let traffic = read(log);
    assert_eq!(traffic.arrivals(1).count(), 1);
    let told = traffic.loaded()[0].to_string();
    for part in ["lines are Caddy's", "2 lines left out: no requests", "1 line left out: no JSON"] {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn objects_of_known_programs_have_their_units() {
    for (line, expected) in [
        (r#"{"time_iso8601":"2023-10-10T13:55:36+00:00","status":200,"request_time":0.300}"#, 300),
        (r#"{"@timestamp":"2023-10-10T13:55:36+00:00","request_time":"1.250"}"#, 1_250),
        (
            r#"{"insertId":"1","timestamp":"2023-10-10T13:55:36.1Z","httpRequest":{"requestMethod":"GET","status":200,"latency":"0.123s"}}"#,
            123,
        ),
        (
            r#"{"attack":"","seq":0,"code":200,"timestamp":"2023-10-10T13:55:36.1Z","latency":12345678,"bytes_in":5}"#,
            12,
        ),
        (
            r#"{"level":30,"time":1696946136100,"pid":7,"req":{"method":"GET"},"res":{"statusCode":200},"responseTime":12.5,"msg":"request completed"}"#,
            12,
        ),
        (
            r#"{"start_time":"2023-10-10T13:55:36.1Z","method":"GET","response_code":200,"duration":42,"bytes_sent":5}"#,
            42,
        ),
        (r#"{"time":"2023-10-10T13:55:36.1Z","status":200,"duration_ms":7.5}"#, 7),
        (r#"{"time":"2023-10-10T13:55:36.1Z","status":200,"latency":"85.5ms"}"#, 85),
    ] {
        assert_eq!(service_millis(&read(line)), [expected], "{line}");
    }
}

#[test]
fn a_number_without_a_unit_is_named_and_not_taken() {
    let log = r#"{"time":"2023-10-10T13:55:36.1Z","status":200,"latency":12}
{"time":"2023-10-10T13:55:37.1Z","status":200,"latency":80}
"#;
    let traffic = read(log);
    assert_eq!(millis(&traffic), [(100, None), (1_100, None)]);
    let warning = &traffic.loaded()[0].warnings[0];
    assert!(warning.contains("`duration=latency`") && warning.contains("`duration-unit=s`"), "{warning}");
    let with_unit = load(&[("f", log)], "file: f, duration-unit: ms").unwrap();
    assert_eq!(service_millis(&with_unit), [12, 80]);
    assert!(error(log, ", duration: latency").contains("latency is 12, a number without a unit"));
    assert!(error(log, ", duration: latncy").contains("did you mean \"latency\""));
    let integer = r#"{"time_iso8601":"2023-10-10T13:55:36+00:00","status":200,"request_time":300}"#;
    assert_eq!(millis(&read(integer))[0].1, None, "nginx writes decimals, always");
}

#[test]
fn whole_seconds_of_objects_are_spread_before_the_duration_is_taken_off() {
    let line = |second: u32| {
        format!(
            "{{\"time_iso8601\":\"2023-10-10T13:55:{second:02}+00:00\",\"status\":200,\"request_time\":0.300}}\n"
        )
    };
    let log: String = (0..30).flat_map(|second| std::iter::repeat_n(line(second), 20)).collect();
    let cv = read(&log).describe(1).gap_cv.unwrap();
    assert!((0.7..1.3).contains(&cv), "independent arrivals, not batches: {cv}");
    let text = |second: u32| {
        format!(
            "1.1.1.1 - - [10/Oct/2023:13:55:{second:02} +0000] \"GET / HTTP/1.1\" 200 5 \"-\" \"c\" 0.300\n"
        )
    };
    let text: String = (0..30).flat_map(|second| std::iter::repeat_n(text(second), 20)).collect();
    assert_eq!(
        millis(&read(&log)),
        millis(&read(&text)),
        "the same requests, whichever way they are written"
    );
}

#[test]
fn a_date_is_since_1970_whatever_its_year() {
    for year in [1969, 1971, 1995, 1998, 2000] {
        let line = |second| {
            format!("host - - [01/Aug/{year}:00:00:{second:02} -0400] \"GET /a HTTP/1.0\" 200 1839\n")
        };
        let traffic = read(&(line(1) + &line(3)));
        assert_eq!(traffic.duration().as_secs(), 3, "{year}");
        let json = |second| format!("{{\"time\": \"{year}-08-01T00:00:{second:02}.5Z\", \"status\": 200}}\n");
        assert_eq!(starts_millis(&read(&(json(1) + &json(3)))), [500, 2_500], "{year}");
    }
    assert_eq!(starts_millis(&read("{\"time\": 7}\n{\"time\": 9.5}\n")), [7_000, 9_500], "bare numbers");
}

#[test]
fn what_can_hardly_be_right_is_told() {
    let hours = load(&[("f", &combined(&[" 301574", " 290001"]))], "file: f, duration-unit: s").unwrap();
    let warnings = hours.loaded()[0].warnings.join("\n");
    for part in ["2 of 2 requests last longer than the whole log", "on average, which is long"] {
        assert!(warnings.contains(part), "{warnings}");
    }
    let ends = load(&[("f", &combined(&[" 301574", " 290001"]))], "file: f, duration-unit: s, stamped: end")
        .unwrap();
    assert!(
        ends.loaded()[0].warnings.iter().any(|warning| warning.contains("began before the log's first line"))
    );
    let fine = load(&[("f", &combined(&[" 301574", " 290001"]))], "file: f, duration-unit: us").unwrap();
    assert_eq!(fine.loaded()[0].warnings, [""; 0]);
}

#[test]
fn files_of_other_kinds_say_what_to_do() {
    for (start, expected) in [
        (&b"\x1f\x8b\x08\x00abc"[..], "gunzip"),
        (b"(\xb5/\xfdabc", "unzstd"),
        (b"PK\x03\x04", "zip archive"),
        (b"#Software: Microsoft Internet Information Services 10.0\n#Version: 1.0\n", "t_start_s"),
        (b"<?xml version=\"1.0\"?>", "output_format=csv"),
        (b"[{\"time\": 1}]", "jq -c"),
        (b"{\"resourceSpans\":[]}", "OpenTelemetry"),
        (b"{\"status\":\"error\",\"errorType\":\"bad_data\",\"error\":\"parse error\"}", "parse error"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("f"), start).unwrap();
        let spec: pilotlight_sim::traffic::TrafficSpec = "trace: {file: f}".parse().unwrap();
        let error = spec.load(folder.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_a_program_says_before_its_first_request_is_left_out() {
    let gunicorn = "[2023-10-10 13:55:30 +0000] [7] [INFO] Starting gunicorn 21.2.0\n\
                    [2023-10-10 13:55:30 +0000] [7] [INFO] Listening at: http://0.0.0.0:8080 (7)\n"
        .to_owned()
        + &combined(&["", ""]);
    let traffic = read(&gunicorn);
    assert_eq!(traffic.arrivals(1).count(), 2);
    assert!(traffic.loaded()[0].to_string().contains("2 lines left out: before the first request"));
    assert!(
        error(&(combined(&[""]) + "Traceback (most recent call last):\n"), "")
            .contains("line 2: there is no [time]")
    );
}

#[test]
fn a_broken_line_does_not_change_what_the_others_are() {
    let good = combined(&[" 0.300"; 30]);
    let broken =
        "10.0.0.9 - - [10/Oct/2023:13:55:40 +0000] \"GET /a \"b\" HTTP/1.1\" 404 17 \"-\" \"-\" 0.001\n";
    let traffic = load(&[("f", &(good.clone() + broken))], "file: f, skip-bad-lines: true").unwrap();
    assert_eq!(service_millis(&traffic)[1..], [300; 30]);
    // Two broken lines of a log without durations: nothing is asked.
    let plain = combined(&[""; 30]) + "1.1.1.1 - - [10/Oct/2023:13:55:41 +0000] \"GET \"x\" y\" 404 17 8 9\n";
    assert_eq!(read(&plain).arrivals(1).count(), 31);
}

#[test]
fn fields_may_stand_before_the_request_and_times_be_iso() {
    let early = "1.1.1.1 - - [10/Oct/2023:13:55:36 +0000] 301574 \"GET / HTTP/1.1\" 200 5\n";
    assert!(error(early, "").contains("field 5 (301574)"));
    assert_eq!(service_millis(&load(&[("f", early)], "file: f, duration-unit: us").unwrap()), [301]);
    let iso = "1.1.1.1 - - [2023-10-10T13:55:36+00:00] \"GET / HTTP/1.1\" 200 5 \"-\" \"curl\" 0.250\n";
    assert_eq!((format(&read(iso)), service_millis(&read(iso))), ("nginx".to_owned(), vec![250]));
    let log_field =
        "{\"log\":\"GET /\",\"time\":\"2023-10-10T13:55:36.5Z\",\"status\":200,\"duration_ms\":8}\n";
    assert_eq!(millis(&read(log_field)), [(500, Some(8))], "a field of that name is no wrapping");
}

#[test]
fn seconds_and_microseconds_of_apache_say_by_themselves_what_they_are() {
    let traffic = read(&combined(&[" 0/301574", " 1/1250000"]));
    assert_eq!((format(&traffic), service_millis(&traffic)), ("apache".to_owned(), vec![301, 1_250]));
    assert!(millis(&read(&combined(&[" 3/301574"])))[0].1.is_none(), "these do not go together");
}

#[test]
fn a_scenario_warns_of_its_trace_before_anything_is_simulated() {
    let log = r#"{"level":"info","ts":1696946130.1,"msg":"using provided configuration"}
{"level":"info","ts":1696946136.5,"logger":"http.log.access","request":{"method":"GET"},"duration":300,"status":200}
"#;
    let folder = traces::folder(&[("caddy.log", log)]);
    let text = "load: {trace: {file: caddy.log}}\npods: {init: 1s}\n";
    let draft = pilotlight_sim::scenario::file::Draft::parse("s.yaml", text, folder.path()).unwrap();
    let parsed = draft.load();
    assert!(parsed.value.is_ok());
    let warnings: Vec<String> = parsed.warnings.iter().map(ToString::to_string).collect();
    for part in ["last longer than the whole log", "1 line left out: no requests"] {
        assert!(warnings.iter().any(|warning| warning.contains(part)), "{warnings:?}");
    }
}
