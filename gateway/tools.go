package gateway

import (
	"encoding/json"

	"github.com/weft-ws/weft/mcpws/envelope"
)

// filterTools is filterList for the result of tools/list.
func filterTools(result []byte, policy func(string) bool, prefix string) []byte {
	return filterList(result, "tools", policy, prefix)
}

// filterList returns a result whose member key is a list of things with names,
// without those that policy refuses, and with prefix before the names of the
// others. A thing is copied as it was written except for its name. A result
// that is not as expected is emptied rather than passed unfiltered.
func filterList(result []byte, key string, policy func(string) bool, prefix string) []byte {
	empty := []byte(`{"` + key + `":[]}`)
	var members map[string]json.RawMessage
	var tools []json.RawMessage
	if json.Unmarshal(result, &members) != nil || json.Unmarshal(members[key], &tools) != nil {
		return empty
	}
	kept := []byte{'['}
	for _, tool := range tools {
		name, at := toolName(tool)
		if !at.Present() || policy != nil && !policy(name) {
			continue
		}
		if len(kept) > 1 {
			kept = append(kept, ',')
		}
		if prefix == "" {
			kept = append(kept, tool...)
			continue
		}
		kept = append(kept, tool[:at.Start]...)
		kept = envelope.AppendString(kept, prefix+name)
		kept = append(kept, tool[at.End:]...)
	}
	members[key] = append(kept, ']')
	out, err := json.Marshal(members)
	if err != nil {
		return empty
	}
	return out
}

// toolName finds the name of a tool or a prompt: the scanner knows it as a parameter.
func toolName(tool []byte) (string, envelope.Span) {
	const before = `{"jsonrpc":"2.0","method":"x","params":`
	m, err := envelope.Parse(append(append([]byte(before), tool...), '}'))
	if err != nil || m.Kind != envelope.Notification || !m.Name.Present() {
		return "", envelope.Span{}
	}
	return m.ParamName(), envelope.Span{Start: m.Name.Start - len(before), End: m.Name.End - len(before)}
}

// topNames returns the names of the members of an object.
func topNames(object []byte) map[string]bool {
	var members map[string]json.RawMessage
	if json.Unmarshal(object, &members) != nil {
		return nil
	}
	names := make(map[string]bool, len(members))
	for name, v := range members {
		names[name] = string(v) != "null" && string(v) != "false"
	}
	return names
}
