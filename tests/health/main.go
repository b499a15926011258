// Judges objects as Argo CD and Flux do, by the health checks that Rehome ships for them, and as kstatus
// does without any: with their own libraries, for kstatus and Flux, and with the engine for Lua that Argo CD
// has.
//
// It reads one JSON object from standard input, the two files and the objects, and writes a list of
// verdicts, one for each object.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	luajson "layeh.com/gopher-json"
)

type input struct {
	// Scripts by the key that they have in argocd-cm.
	ArgoCD map[string]string `json:"argocd"`
	// spec.healthCheckExprs of a Kustomization.
	Flux    []kustomize.CustomHealthCheck `json:"flux"`
	Objects []json.RawMessage             `json:"objects"`
}

type verdict struct {
	ArgoCD  health `json:"argocd"`
	Flux    string `json:"flux"`
	Kstatus string `json:"kstatus"`
}

type health struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var in input
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	verdicts := []verdict{}
	for _, raw := range in.Objects {
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(raw); err != nil {
			return err
		}
		judged, err := in.judge(object, raw)
		if err != nil {
			return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
		verdicts = append(verdicts, judged)
	}
	return json.NewEncoder(os.Stdout).Encode(verdicts)
}

func (in *input) judge(object *unstructured.Unstructured, raw []byte) (verdict, error) {
	plain, err := status.Compute(object)
	if err != nil {
		return verdict{}, fmt.Errorf("kstatus: %w", err)
	}
	flux, err := in.flux(object)
	if err != nil {
		return verdict{}, fmt.Errorf("Flux: %w", err)
	}
	argocd, err := in.argocd(object, raw)
	if err != nil {
		return verdict{}, fmt.Errorf("Argo CD: %w", err)
	}
	return verdict{ArgoCD: argocd, Flux: string(flux), Kstatus: string(plain.Status)}, nil
}

func (in *input) flux(object *unstructured.Unstructured) (status.Status, error) {
	for _, check := range in.Flux {
		if check.APIVersion != object.GetAPIVersion() || check.Kind != object.GetKind() {
			continue
		}
		evaluator, err := cel.NewStatusEvaluator(&check.HealthCheckExpressions)
		if err != nil {
			return "", err
		}
		result, err := evaluator.Evaluate(context.Background(), object)
		if err != nil {
			return "", err
		}
		return result.Status, nil
	}
	return "", fmt.Errorf("no check is for it")
}

func (in *input) argocd(object *unstructured.Unstructured, raw []byte) (health, error) {
	kind := object.GroupVersionKind()
	script, ok := in.ArgoCD[fmt.Sprintf("resource.customizations.health.%s_%s", kind.Group, kind.Kind)]
	if !ok {
		return health{}, fmt.Errorf("no script is for it")
	}
	// Not more than Argo CD lets a script have: neither strings nor input and output.
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable,
	} {
		state.Push(state.NewFunction(open))
		state.Push(lua.LString(name))
		state.Call(1, 0)
	}
	decoded, err := luajson.Decode(state, raw)
	if err != nil {
		return health{}, err
	}
	state.SetGlobal("obj", decoded)
	if err := state.DoString(script); err != nil {
		return health{}, err
	}
	encoded, err := luajson.Encode(state.Get(-1))
	if err != nil {
		return health{}, err
	}
	var answer health
	return answer, json.Unmarshal(encoded, &answer)
}
