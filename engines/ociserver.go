// The OCI registry: cue-labs' server over its storage in memory. The flags make it do as some public registries do.
package main

import (
	"flag"
	"log"
	"net/http"

	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"cuelabs.dev/go/oci/ociregistry/ociserver"
)

func main() {
	var memory ocimem.Config
	var server ociserver.Options
	address := flag.String("address", "", "host and port to listen on")
	flag.BoolVar(&memory.ImmutableTags, "immutable-tags", false, "refuse to move tags")
	flag.BoolVar(&server.DisableReferrersAPI, "no-referrers", false, "do not know the referrers API")
	flag.BoolVar(&server.DisableSinglePostUpload, "no-single-post", false, "refuse uploads by a single POST")
	flag.BoolVar(&server.OmitDigestFromTagGetResponse, "no-tag-digest", false, "send no digest with a manifest got by tag")
	flag.BoolVar(&server.OmitLinkHeaderFromResponses, "no-links", false, "send no Link header with lists that go on")
	flag.IntVar(&server.MaxListPageSize, "max-page", 0, "refuse to list more than this at once; 0: any number")
	flag.Parse()
	log.Fatal(http.ListenAndServe(*address, ociserver.New(ocimem.NewWithConfig(&memory), &server)))
}
