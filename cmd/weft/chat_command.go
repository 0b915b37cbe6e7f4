package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/weft-ws/weft/chat"
)

// submit takes a line that the user has written: one that begins with a slash
// is a command, and two slashes begin a line with one. It returns what to show.
func submit(c *chat.Client, line string) (string, error) {
	command, isCommand := strings.CutPrefix(line, "/")
	if !isCommand || strings.HasPrefix(command, "/") {
		return "", c.Say(strings.TrimPrefix(line, "/"))
	}
	name, arg, _ := strings.Cut(command, " ")
	arg = strings.TrimSpace(arg)
	switch name {
	case "mute", "unmute":
		if arg == "" {
			return "", errors.New("/" + name + " needs a name; /who tells them")
		}
		if err := c.MuteMember(arg, name == "mute"); err != nil {
			return "", err
		}
		return map[string]string{"mute": "you do not hear " + arg + " any more", "unmute": "you hear " + arg + " again"}[name], nil
	case "who":
		list := c.Members()
		if len(list) == 0 {
			return "", errors.New("this server does not tell who is there")
		}
		names := make([]string, len(list))
		for i, m := range list {
			names[i] = m.Name
			switch {
			case m.Own:
				names[i] += " (you)"
			case m.Muted:
				names[i] += " (muted)"
			}
		}
		return strings.Join(names, ", "), nil
	}
	return "", fmt.Errorf("there is no command /%s; there are /who, /mute NAME and /unmute NAME", name)
}
