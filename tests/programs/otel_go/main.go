// Command otel_go is a client of OTLP made of OpenTelemetry's SDK for Go.
//
//	otel_go grpc|http HOST:PORT
//
// It sends spans, metrics and logs with gzip, and prints the ids of its spans, a line each.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/log"
	"go.opentelemetry.io/otel/metric"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const (
	spanCount = 2000
	logCount  = 100
	schema    = "https://opentelemetry.io/schemas/1.37.0"
)

var shop = resource.NewWithAttributes(schema, attribute.String("service.name", "shop"))

type exporters struct {
	spans   sdktrace.SpanExporter
	metrics sdkmetric.Exporter
	logs    sdklog.Exporter
}

func overGrpc(ctx context.Context, address string) (made exporters, err error) {
	var errs [3]error
	made.spans, errs[0] = otlptrace.New(ctx, otlptracegrpc.NewClient(
		otlptracegrpc.WithEndpoint(address), otlptracegrpc.WithInsecure(), otlptracegrpc.WithCompressor("gzip")))
	made.metrics, errs[1] = otlpmetricgrpc.New(ctx,
		otlpmetricgrpc.WithEndpoint(address), otlpmetricgrpc.WithInsecure(), otlpmetricgrpc.WithCompressor("gzip"),
		otlpmetricgrpc.WithAggregationSelector(aggregation))
	made.logs, errs[2] = otlploggrpc.New(ctx,
		otlploggrpc.WithEndpoint(address), otlploggrpc.WithInsecure(), otlploggrpc.WithCompressor("gzip"))
	return made, errors.Join(errs[:]...)
}

func overHttp(ctx context.Context, address string) (made exporters, err error) {
	var errs [3]error
	made.spans, errs[0] = otlptrace.New(ctx, otlptracehttp.NewClient(
		otlptracehttp.WithEndpoint(address), otlptracehttp.WithInsecure(),
		otlptracehttp.WithCompression(otlptracehttp.GzipCompression)))
	made.metrics, errs[1] = otlpmetrichttp.New(ctx,
		otlpmetrichttp.WithEndpoint(address), otlpmetrichttp.WithInsecure(),
		otlpmetrichttp.WithCompression(otlpmetrichttp.GzipCompression),
		otlpmetrichttp.WithAggregationSelector(aggregation))
	made.logs, errs[2] = otlploghttp.New(ctx,
		otlploghttp.WithEndpoint(address), otlploghttp.WithInsecure(),
		otlploghttp.WithCompression(otlploghttp.GzipCompression))
	return made, errors.Join(errs[:]...)
}

// Histograms are exponential, counters and gauges as usual.
func aggregation(kind sdkmetric.InstrumentKind) sdkmetric.Aggregation {
	if kind == sdkmetric.InstrumentKindHistogram {
		return sdkmetric.AggregationBase2ExponentialHistogram{MaxSize: 160, MaxScale: 20}
	}
	return sdkmetric.DefaultAggregationSelector(kind)
}

// Returns the context of the last span.
func sendSpans(ctx context.Context, exporter sdktrace.SpanExporter) (context.Context, error) {
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithResource(shop), sdktrace.WithBatcher(exporter, sdktrace.WithBlocking()))
	tracer := provider.Tracer("otel_go", trace.WithInstrumentationVersion("1"), trace.WithSchemaURL(schema))
	within, before := ctx, trace.SpanContext{}
	for number := range spanCount {
		options := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindProducer)}
		if before.IsValid() {
			why := attribute.String("why", "before")
			options = append(options, trace.WithLinks(trace.Link{SpanContext: before, Attributes: []attribute.KeyValue{why}}))
		}
		var span trace.Span
		within, span = tracer.Start(ctx, fmt.Sprintf("span %d", number), options...)
		span.SetAttributes(
			attribute.Int("number", number),
			attribute.String("text", "täglich"),
			attribute.Float64("share", 0.25),
			attribute.Bool("paid", true),
			attribute.StringSlice("many", []string{"a", "b"}))
		span.AddEvent("happened", trace.WithAttributes(attribute.Float64("x", 1.5)))
		span.SetStatus(codes.Error, "it failed")
		span.End()
		before = span.SpanContext()
		fmt.Println(before.TraceID(), before.SpanID())
	}
	return within, provider.Shutdown(ctx)
}

// Within a span, so that there are exemplars.
func sendMetrics(ctx context.Context, exporter sdkmetric.Exporter) error {
	reader := sdkmetric.NewPeriodicReader(exporter, sdkmetric.WithInterval(time.Hour))
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithResource(shop), sdkmetric.WithReader(reader))
	meter := provider.Meter("otel_go")
	orders, e1 := meter.Int64Counter("orders", metric.WithUnit("{order}"), metric.WithDescription("Sold."))
	latency, e2 := meter.Float64Histogram("latency", metric.WithUnit("s"))
	stock, e3 := meter.Int64Gauge("stock")
	if err := errors.Join(e1, e2, e3); err != nil {
		return err
	}
	orders.Add(ctx, 5, metric.WithAttributes(attribute.String("kind", "book")))
	for _, seconds := range []float64{0, 0.25, 0.5} {
		latency.Record(ctx, seconds)
	}
	stock.Record(ctx, -3)
	return provider.Shutdown(ctx)
}

func sendLogs(ctx context.Context, exporter sdklog.Exporter) error {
	provider := sdklog.NewLoggerProvider(
		sdklog.WithResource(shop), sdklog.WithProcessor(sdklog.NewBatchProcessor(exporter)))
	logger := provider.Logger("otel_go")
	for number := range logCount {
		var record log.Record
		record.SetTimestamp(time.Now())
		record.SetSeverity(log.SeverityError)
		record.SetSeverityText("ERROR")
		record.SetEventName("checkout")
		record.SetBody(attribute.MapValue(attribute.String("said", "it failed"), attribute.Int("order", number)))
		record.AddAttributes(attribute.ByteSlice("key", []byte{0, 255}))
		logger.Emit(ctx, record)
	}
	return provider.Shutdown(ctx)
}

func run(protocol, address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	make := overGrpc
	if protocol == "http" {
		make = overHttp
	}
	made, err := make(ctx, address)
	if err != nil {
		return err
	}
	within, err := sendSpans(ctx, made.spans)
	return errors.Join(err, sendMetrics(within, made.metrics), sendLogs(within, made.logs))
}

func main() {
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
