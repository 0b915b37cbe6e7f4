package gateway

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// BuiltinLargeMax is the largest answer of the built-in tool "large", in bytes.
const BuiltinLargeMax = 64 << 20

// NewBuiltin returns the MCP server that answers when none is configured: five
// tools with which a client, or a way to this endpoint, can be tried out.
func NewBuiltin(version string) *mcp.Server {
	s := mcp.NewServer(&mcp.Implementation{Name: "weft", Title: "weft's built-in tools", Version: version}, &mcp.ServerOptions{
		Instructions: "Tools to try out an MCP client and the way to this server: echo, add, large, slow, ask.",
	})
	type text struct {
		Text string `json:"text" jsonschema:"what to say back"`
	}
	mcp.AddTool(s, &mcp.Tool{Name: "echo", Description: "says back what it is told"},
		func(_ context.Context, _ *mcp.CallToolRequest, in text) (*mcp.CallToolResult, any, error) {
			return say(in.Text), nil, nil
		})

	type numbers struct {
		A float64 `json:"a"`
		B float64 `json:"b"`
	}
	type sum struct {
		Sum float64 `json:"sum"`
	}
	mcp.AddTool(s, &mcp.Tool{Name: "add", Description: "adds two numbers"},
		func(_ context.Context, _ *mcp.CallToolRequest, in numbers) (*mcp.CallToolResult, sum, error) {
			return nil, sum{in.A + in.B}, nil
		})

	type size struct {
		Bytes int `json:"bytes" jsonschema:"length of the answer"`
	}
	mcp.AddTool(s, &mcp.Tool{Name: "large", Description: fmt.Sprintf("answers with that many bytes of text, at most %d", BuiltinLargeMax)},
		func(_ context.Context, _ *mcp.CallToolRequest, in size) (*mcp.CallToolResult, any, error) {
			if in.Bytes < 0 || in.Bytes > BuiltinLargeMax {
				return nil, nil, fmt.Errorf("bytes must be between 0 and %d", BuiltinLargeMax)
			}
			const line = "All work and no play makes Jack a dull boy. "
			return say(strings.Repeat(line, in.Bytes/len(line)+1)[:in.Bytes]), nil, nil
		})

	type steps struct {
		Steps   int     `json:"steps" jsonschema:"how many progress notifications, at most 1000"`
		Seconds float64 `json:"seconds" jsonschema:"how long in all, at most 600"`
	}
	mcp.AddTool(s, &mcp.Tool{Name: "slow", Description: "takes its time and reports progress"}, slow[steps](func(in steps) (int, time.Duration) {
		return in.Steps, time.Duration(in.Seconds * float64(time.Second))
	}))

	type question struct {
		Question string `json:"question" jsonschema:"what to ask the person at the client"`
	}
	mcp.AddTool(s, &mcp.Tool{Name: "ask", Description: "asks the client a question (elicitation) and says what it answered"},
		func(_ context.Context, req *mcp.CallToolRequest, in question) (*mcp.CallToolResult, any, error) {
			answer, ok := req.Params.InputResponses["answer"].(*mcp.ElicitResult)
			if !ok {
				return &mcp.CallToolResult{InputRequests: mcp.InputRequestMap{"answer": &mcp.ElicitParams{
					Message: in.Question,
					RequestedSchema: map[string]any{"type": "object", "required": []string{"answer"},
						"properties": map[string]any{"answer": map[string]any{"type": "string"}}},
				}}}, nil, nil
			}
			if answer.Action != "accept" {
				return say("The client would not say: " + answer.Action), nil, nil
			}
			return say(fmt.Sprint("The client said: ", answer.Content["answer"])), nil, nil
		})
	return s
}

func say(text string) *mcp.CallToolResult {
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: text}}}
}

const (
	slowStepsMax = 1000
	slowMax      = 10 * time.Minute
)

// slow makes a tool that reports progress in equal steps until the time is
// over or the call is cancelled.
func slow[In any](of func(In) (steps int, whole time.Duration)) mcp.ToolHandlerFor[In, any] {
	return func(ctx context.Context, req *mcp.CallToolRequest, in In) (*mcp.CallToolResult, any, error) {
		steps, whole := of(in)
		if steps < 1 || steps > slowStepsMax || whole < 0 || whole > slowMax {
			return nil, nil, fmt.Errorf("steps must be 1 to %d and seconds at most %g", slowStepsMax, slowMax.Seconds())
		}
		token := req.Params.GetProgressToken()
		tick := time.NewTimer(0)
		defer tick.Stop()
		<-tick.C
		for i := 1; i <= steps; i++ {
			tick.Reset(whole / time.Duration(steps))
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil, nil, ctx.Err()
			}
			if token == nil {
				continue
			}
			err := req.Session.NotifyProgress(ctx, &mcp.ProgressNotificationParams{
				ProgressToken: token, Progress: float64(i), Total: float64(steps), Message: fmt.Sprintf("step %d of %d", i, steps)})
			if err != nil {
				return nil, nil, err
			}
		}
		return say(fmt.Sprintf("done in %d steps", steps)), nil, nil
	}
}
