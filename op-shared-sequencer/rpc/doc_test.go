package rpc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/bundlepool"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/operators"
)

// What is tested of docs/rpc.md:
//
//   methods   each has a section, and each section a method
//   examples  params and result of each section are what the method takes and answers
//   fields    each field of params and result is named in the section
//   errors    each code, and each kind of an error's data, is in the page

func page(t *testing.T) string {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "rpc.md"))
	require.NoError(t, err)
	return string(text)
}

func TestReferenceMethods(t *testing.T) {
	sections := map[string]string{}
	for _, s := range strings.Split(page(t), "\n### ")[1:] {
		title, body, _ := strings.Cut(s, "\n")
		if name, ok := strings.CutPrefix(title, Namespace+"_"); ok {
			body, _, _ = strings.Cut(body, "\n## ")
			sections[name] = body
		}
	}
	blocks := regexp.MustCompile("(?s)```json\n(.*?)```")
	api := reflect.TypeFor[*methods]()
	for i := range api.NumMethod() {
		m := api.Method(i)
		name := strings.ToLower(m.Name[:1]) + m.Name[1:]
		t.Run(name, func(t *testing.T) {
			section, ok := sections[name]
			require.True(t, ok, "docs/rpc.md has no section ### %s_%s", Namespace, name)
			delete(sections, name)
			examples := blocks.FindAllStringSubmatch(section, -1)
			require.Len(t, examples, 2, "expected the params and the result of a call, as JSON")

			var params []json.RawMessage
			decode(t, examples[0][1], &params)
			var takes []reflect.Type
			for j := 1; j < m.Type.NumIn(); j++ { // from behind the receiver
				if in := m.Type.In(j); in.Kind() != reflect.Interface { // a context
					takes = append(takes, in)
				}
			}
			require.Len(t, params, len(takes), "params")
			for j, p := range params {
				decode(t, string(p), reflect.New(takes[j]).Interface())
			}
			result := m.Type.Out(0)
			decode(t, examples[1][1], reflect.New(result).Interface())

			for _, typ := range append(takes, result) {
				for _, field := range fields(typ, map[reflect.Type]bool{}) {
					require.Regexp(t, fmt.Sprintf("[\"`]%s[\"`]", field), section, "field %s of %s is not explained", field, typ)
				}
			}
		})
	}
	require.Empty(t, sections, "sections of methods that there are not")
}

// decode reads an example, in which long values are cut off with "…".
func decode(t *testing.T, example string, into any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader([]byte(strings.ReplaceAll(example, "…", ""))))
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(into), "%s", example)
}

// fields are the names of our own types' JSON fields, in all depths.
func fields(typ reflect.Type, seen map[reflect.Type]bool) []string {
	switch {
	case seen[typ]:
		return nil
	case typ.Kind() == reflect.Pointer, typ.Kind() == reflect.Slice, typ.Kind() == reflect.Array:
		return fields(typ.Elem(), seen)
	case typ.Kind() != reflect.Struct, typ.PkgPath() != reflect.TypeFor[methods]().PkgPath():
		return nil
	}
	seen[typ] = true
	var out []string
	for i := range typ.NumField() {
		f := typ.Field(i)
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
			out = append(append(out, name), fields(f.Type, seen)...)
		}
	}
	return out
}

func TestReferenceErrors(t *testing.T) {
	text, err := os.ReadFile("errors.go")
	require.NoError(t, err)
	codes := regexp.MustCompile(`(?m)^\s+Code\w+\s+=\s+(-\d+)`).FindAllStringSubmatch(string(text), -1)
	require.Len(t, codes, len(regexp.MustCompile(`(?m)^\s+Code\w+\s`).FindAllString(string(text), -1)), "every constant is a code")
	require.NotEmpty(t, codes)
	for _, c := range codes {
		require.Contains(t, page(t), "| "+c[1]+" |")
	}
	for _, err := range []error{
		bundlepool.ErrEmpty, bundlepool.ErrTooManyItems, bundlepool.ErrTooLarge, bundlepool.ErrExpired, bundlepool.ErrTooFarAhead,
		bundlepool.ErrUnknownChain, bundlepool.ErrMalformed, bundlepool.ErrTxType, bundlepool.ErrWrongChain, bundlepool.ErrSignature,
		bundlepool.ErrDuplicate, bundlepool.ErrNonceOrder, bundlepool.ErrGas, bundlepool.ErrRelay, bundlepool.ErrInvalidTx, bundlepool.ErrTerms,
	} {
		require.Contains(t, page(t), "`"+toRPC(&bundlepool.InvalidError{Kind: err}).Data.Kind+"`", "%v", err)
	}
	for _, err := range []error{
		operators.ErrMalformed, operators.ErrNotOperator, operators.ErrDuplicate, operators.ErrEnded, operators.ErrExpiry,
		operators.ErrNotApplicable, operators.ErrLimit,
	} {
		require.Contains(t, page(t), "`"+toRPC(err).Data.Kind+"`", "%v", err)
	}
}
